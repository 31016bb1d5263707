//! Who is who: the hosts on chain by peer id and by account.

use libp2p::{Multiaddr, PeerId};
use starling_primitives::AccountId;
use std::{
    collections::HashMap,
    sync::{Arc, RwLock},
};

/// A registered host that announced how it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerEntry {
    /// The host's account.
    pub account: AccountId,
    /// Its libp2p identity.
    pub peer: PeerId,
    /// Where it listens.
    pub addresses: Vec<Multiaddr>,
}

impl PeerEntry {
    /// Reads what a host announced on chain; `None` when it is no peer id, or no address is left.
    pub fn parse<A: AsRef<[u8]>>(account: AccountId, peer_id: &[u8], multiaddrs: &[A]) -> Option<Self> {
        // Announced either as the text that people see (base58) or as the multihash itself.
        let peer = std::str::from_utf8(peer_id)
            .ok()
            .and_then(|text| text.parse().ok())
            .or_else(|| PeerId::from_bytes(peer_id).ok())?;
        let addresses = multiaddrs
            .iter()
            .filter_map(|bytes| {
                let bytes = bytes.as_ref();
                std::str::from_utf8(bytes)
                    .ok()
                    .and_then(|text| text.parse().ok())
                    .or_else(|| Multiaddr::try_from(bytes.to_vec()).ok())
            })
            .collect();
        Some(Self { account, peer, addresses })
    }
}

#[derive(Default)]
struct Inner {
    by_account: HashMap<AccountId, PeerEntry>,
    addresses: HashMap<PeerId, Vec<Multiaddr>>,
}

/// The shared table; cheap to clone, replaced as a whole with each view of the chain.
///
/// The account is the key: anybody may announce somebody else's peer id, so a peer id says nothing about *which*
/// host speaks. Whoever needs that asks whether the account in question announced the peer id.
#[derive(Clone, Default)]
pub struct PeerTable {
    inner: Arc<RwLock<Inner>>,
}

impl std::fmt::Debug for PeerTable {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("PeerTable").field("peers", &self.read().by_account.len()).finish()
    }
}

impl PeerTable {
    /// Addresses kept of one peer id at most, over all who announced it.
    const MAX_ADDRESSES: usize = 16;

    /// Replaces the table.
    pub fn replace(&self, entries: impl IntoIterator<Item = PeerEntry>) {
        let mut inner = Inner::default();
        for entry in entries {
            let known = inner.addresses.entry(entry.peer).or_default();
            for address in &entry.addresses {
                if known.len() < Self::MAX_ADDRESSES && !known.contains(address) {
                    known.push(address.clone());
                }
            }
            inner.by_account.insert(entry.account.clone(), entry);
        }
        *self.write() = inner;
    }

    /// How a host is reached.
    pub fn entry_of(&self, account: &AccountId) -> Option<PeerEntry> {
        self.read().by_account.get(account).cloned()
    }

    /// Whether `account` announced this peer id.
    pub fn speaks_for(&self, peer: &PeerId, account: &AccountId) -> bool {
        self.read().by_account.get(account).is_some_and(|entry| entry.peer == *peer)
    }

    /// Whether a peer id belongs to a registered host.
    pub fn knows(&self, peer: &PeerId) -> bool {
        self.read().addresses.contains_key(peer)
    }

    /// Addresses of a peer.
    pub fn addresses_of(&self, peer: &PeerId) -> Vec<Multiaddr> {
        self.read().addresses.get(peer).cloned().unwrap_or_default()
    }

    /// All peer ids.
    pub fn peers(&self) -> Vec<PeerId> {
        self.read().addresses.keys().copied().collect()
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Inner> {
        // The lock holds plain data that is replaced as a whole: a panic elsewhere cannot leave it half done.
        self.inner.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(byte: u8) -> AccountId {
        AccountId::new([byte; 32])
    }

    #[test]
    fn announcing_somebody_elses_identity_takes_nothing_away() {
        let peer = PeerId::random();
        let entry = |byte, port: u8| {
            let address = format!("/ip4/127.0.0.1/tcp/{port}");
            PeerEntry::parse(account(byte), peer.to_string().as_bytes(), &[address]).unwrap()
        };
        let table = PeerTable::default();
        table.replace([entry(1, 1), entry(2, 2)]);
        assert!(table.speaks_for(&peer, &account(1)) && table.speaks_for(&peer, &account(2)));
        assert_eq!(table.addresses_of(&peer).len(), 2);
        assert_eq!(table.entry_of(&account(1)).unwrap().peer, peer);
        table.replace([]);
        assert!(!table.knows(&peer));
    }

    #[test]
    fn parses_text_and_bytes_and_drops_nonsense() {
        let peer = PeerId::random();
        let address: Multiaddr = "/ip4/10.0.0.1/tcp/4001".parse().unwrap();
        let entry = PeerEntry::parse(account(1), &peer.to_bytes(), &[address.to_vec(), b"\xff\xff".to_vec()])
            .unwrap();
        assert_eq!(entry.peer, peer);
        assert_eq!(entry.addresses, vec![address]);
        assert_eq!(PeerEntry::parse::<&[u8]>(account(1), b"nonsense", &[]), None);
    }
}
