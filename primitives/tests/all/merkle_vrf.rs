//! Merkle proofs and VRF proofs.

use ::codec::{Decode, Encode};
use proptest::prelude::*;
use sp_core::{sr25519::Pair, Pair as _};
use starling_primitives::{
    merkle::{proof, root, verify, Proof, Tree},
    vrf::{self, VrfInput, VrfProof},
    H256,
};

fn leaves(count: u32) -> Vec<H256> {
    (0..count).map(|i| H256::from_low_u64_be(i.into())).collect()
}

#[test]
fn every_leaf_of_every_small_tree_verifies_at_its_place_only() {
    for count in 0..=33 {
        let leaves = leaves(count);
        let tree = Tree::new(&leaves);
        assert_eq!((tree.root(), tree.count()), (root(&leaves), count));
        for (index, leaf) in (0..).zip(&leaves) {
            let proof = proof(&leaves, index);
            assert_eq!(proof, tree.proof(index));
            for other in 0..count + 2 {
                assert_eq!(verify(&tree.root(), leaf, other, count, &proof), other == index);
            }
            for other in (0..count).chain(count + 1..count + 3) {
                assert!(!verify(&tree.root(), leaf, index, other, &proof));
            }
        }
        let outside = tree.proof(count);
        assert!(!verify(&tree.root(), &H256::zero(), count, count, &outside));
    }
}

#[test]
fn roots_differ_by_number_order_and_content() {
    let mut roots: Vec<H256> = (0..20).map(|count| root(&leaves(count))).collect();
    roots.push(root(&[H256::zero(), H256::zero()]));
    roots.push(root(&[H256::from_low_u64_be(1), H256::zero()]));
    let different: std::collections::BTreeSet<_> = roots.iter().collect();
    assert_eq!(different.len(), roots.len());
    // A root is no leaf of a smaller tree: domains are separate.
    assert_ne!(root(&[root(&leaves(2))]), root(&leaves(2)));
}

#[test]
fn largest_counts_terminate() {
    let proof = Proof { siblings: vec![H256::zero(); 32] };
    assert!(!verify(&H256::zero(), &H256::zero(), u32::MAX - 1, u32::MAX, &proof));
    assert!(!verify(&H256::zero(), &H256::zero(), 0, u32::MAX, &Proof::default()));
}

proptest! {
    #[test]
    fn tampered_proofs_fail(count in 1u32..200, index: prop::sample::Index, at: prop::sample::Index, bit in 0u8..8) {
        let leaves = leaves(count);
        let index = index.index(count as usize) as u32;
        let (root, leaf, proof) = (root(&leaves), leaves[index as usize], proof(&leaves, index));
        prop_assert!(verify(&root, &leaf, index, count, &proof));
        let mut bytes = (root, leaf, proof.clone()).encode();
        let place = at.index(bytes.len());
        bytes[place] ^= 1 << bit;
        if let Ok((root, leaf, proof)) = <(H256, H256, Proof)>::decode(&mut &bytes[..]) {
            prop_assert!(!verify(&root, &leaf, index, count, &proof));
        }
        let mut longer = proof;
        longer.siblings.push(H256::zero());
        prop_assert!(!verify(&root, &leaf, index, count, &longer));
    }
}

#[test]
fn vrf_outputs_are_unique_and_bound_to_key_and_input() {
    let pair = Pair::from_seed(&[1; 32]);
    let other = Pair::from_seed(&[2; 32]);
    let inputs = [
        VrfInput::Beacon(H256::zero(), 1),
        VrfInput::Beacon(H256::zero(), 2),
        VrfInput::Beacon(H256::repeat_byte(1), 1),
        VrfInput::Duty(H256::zero(), 1, H256::zero()),
        VrfInput::Duty(H256::zero(), 1, H256::repeat_byte(1)),
    ];
    let mut outputs = std::collections::BTreeSet::new();
    for input in &inputs {
        let (proof, output) = vrf::sign(&pair, input);
        let (again, same) = vrf::sign(&pair, input);
        assert_eq!((output, proof.pre_output), (same, again.pre_output));
        for candidate in &inputs {
            let verified = vrf::verify(&pair.public(), candidate, &proof);
            assert_eq!(verified, (candidate == input).then_some(output));
        }
        assert_eq!(vrf::verify(&other.public(), input, &proof), None);
        outputs.insert(output);
        outputs.insert(vrf::sign(&other, input).1);
    }
    assert_eq!(outputs.len(), 2 * inputs.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn tampered_vrf_proofs_fail(place in 0usize..96, bit in 0u8..8) {
        let pair = Pair::from_seed(&[1; 32]);
        let input = VrfInput::Beacon(H256::zero(), 1);
        let (proof, output) = vrf::sign(&pair, &input);
        let mut bytes = proof.encode();
        bytes[place] ^= 1 << bit;
        let changed = VrfProof::decode(&mut &bytes[..]).expect("96 bytes");
        // Never another output; a proof that still verifies would have to give the same one.
        prop_assert!(vrf::verify(&pair.public(), &input, &changed).is_none_or(|other| other == output));
    }

    #[test]
    fn random_vrf_proofs_fail(bytes in prop::collection::vec(any::<u8>(), 96), key: [u8; 32]) {
        let proof = VrfProof::decode(&mut &bytes[..]).expect("96 bytes");
        let key = sp_core::sr25519::Public::from_raw(key);
        prop_assert_eq!(vrf::verify(&key, &VrfInput::Beacon(H256::zero(), 1), &proof), None);
    }
}
