//! Signing requests.

use starling_chain_client::Keypair;
use starling_primitives::{
    request::{Authorization, RequestHeader, SignedAuthorization},
    AccountId, Balance, BlockNumber, MultiSignature, H256,
};

/// Signs requests of one paying account, by its own key or by one that it delegated spending to.
#[derive(Clone, Debug)]
pub struct RequestSigner {
    genesis: H256,
    payer: AccountId,
    key: Keypair,
}

impl RequestSigner {
    /// `payer` pays for what `key` signs.
    pub fn new(genesis: H256, payer: AccountId, key: Keypair) -> Self {
        Self { genesis, payer, key }
    }

    /// The account that pays.
    pub fn payer(&self) -> &AccountId {
        &self.payer
    }

    /// Hash of block 0 of the chain that signatures are for.
    pub fn genesis(&self) -> H256 {
        self.genesis
    }

    /// Allows `gateway` to have the request run for at most `max_price`, if it is recorded by block `expires_at`.
    pub fn authorize(
        &self,
        header: &RequestHeader,
        gateway: AccountId,
        max_price: Balance,
        expires_at: BlockNumber,
    ) -> SignedAuthorization {
        let authorization = Authorization {
            client: self.payer.clone(),
            request_id: header.id(),
            profile: header.profile,
            max_price,
            gateway,
            expires_at,
        };
        let signature = self.key.sign(authorization.signing_hash(&self.genesis).as_bytes());
        SignedAuthorization {
            authorization,
            signer: self.key.account(),
            signature: MultiSignature::Sr25519(signature),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use starling_primitives::request::SamplingParams;

    #[test]
    fn signs_for_one_chain_and_one_request() {
        let key = Keypair::from_suri("//Ferdie").unwrap();
        let genesis = H256::repeat_byte(7);
        let signer = RequestSigner::new(genesis, key.account(), key);
        let header = RequestHeader {
            profile: 0,
            prompt_hash: H256::repeat_byte(1),
            sampling: SamplingParams::GREEDY,
            max_tokens: 8,
            constraint: None,
            nonce: [3; 32],
        };
        let signed = signer.authorize(&header, AccountId::new([9; 32]), 100, 50);
        assert!(signed.verify(&genesis));
        assert!(!signed.verify(&H256::repeat_byte(8)));
        let mut other = signed.clone();
        other.authorization.max_price += 1;
        assert!(!other.verify(&genesis));
    }
}
