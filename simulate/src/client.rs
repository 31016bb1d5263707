//! Clients: they deposit and ask. Some deny that anything was delivered.

use crate::chain;
use frame_support::dispatch::DispatchResult;
use pallet_inference::Call;
use sp_core::{sr25519, Pair};
use starling_primitives::{
    hashing::hash_of,
    plant::Consent,
    records::Started,
    request::{Authorization, SignedAuthorization},
    AccountId, Balance, MultiSignature, RequestId, TOKEN,
};
use starling_runtime::{Runtime, System};

/// Deposit that a client keeps up.
const DEPOSIT: Balance = 1_000 * TOKEN;
/// Blocks for which an authorization is good.
const GOOD_FOR: u32 = 6;

/// A client.
#[derive(Debug)]
pub struct Client {
    key: ClientKey,
    /// Whether it tries not to pay for what it got.
    pub denies: bool,
    /// Tricks that the chain refused.
    pub refused: u32,
    /// Tricks that worked.
    pub worked: u32,
}

struct ClientKey(sr25519::Pair);

impl std::fmt::Debug for ClientKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", AccountId::from(self.0.public()))
    }
}

impl Client {
    /// Client number `n`.
    pub fn new(n: u32, denies: bool) -> Self {
        let pair = sr25519::Pair::from_seed(&hash_of(b"starling/simulate/client", &n).0);
        Self { key: ClientKey(pair), denies, refused: 0, worked: 0 }
    }

    /// Its account.
    pub fn account(&self) -> AccountId {
        self.key.0.public().into()
    }

    fn call(&self, call: Call<Runtime>) -> DispatchResult {
        chain::call(self.account(), call)
    }

    /// Fills its deposit up.
    pub fn fill_up(&self) -> DispatchResult {
        let deposit = pallet_inference::Deposits::<Runtime>::get(self.account());
        let amount = DEPOSIT.saturating_sub(deposit.free);
        if amount < TOKEN {
            return Ok(());
        }
        self.call(Call::deposit { amount })
    }

    /// Allows a gateway to have a request run.
    pub fn authorize(
        &self,
        request_id: RequestId,
        gateway: &AccountId,
        max_price: Balance,
    ) -> SignedAuthorization {
        let authorization = Authorization {
            client: self.account(),
            request_id,
            profile: 0,
            max_price,
            gateway: gateway.clone(),
            expires_at: System::block_number() + GOOD_FOR,
        };
        let signature = self.key.0.sign(authorization.signing_hash(&chain::genesis_hash()).as_bytes());
        let signature = MultiSignature::Sr25519(signature);
        SignedAuthorization { authorization, signer: self.account(), signature }
    }

    /// That the answer to this request is bad on purpose.
    pub fn consent(&self, request: &RequestId) -> Consent {
        let signature = self.key.0.sign(Consent::signing_hash(&chain::genesis_hash(), request).as_bytes());
        Consent { signer: self.account(), signature: MultiSignature::Sr25519(signature) }
    }

    /// Everything that a client can do to have its money back for an answer that it got: take out what is reserved, let
    /// the request expire although it is answered.
    pub fn deny(&mut self, started: &Started) {
        let deposit = pallet_inference::Deposits::<Runtime>::get(self.account());
        let request = started.authorization.authorization.request_id;
        let withdrawn = self.call(Call::withdraw { amount: deposit.free + 1 }).is_ok();
        let items = vec![request].try_into().expect("one fits");
        let _ = self.call(Call::expire { items });
        let after = pallet_inference::Deposits::<Runtime>::get(self.account());
        let had_back = after.free + after.reserved > deposit.free + deposit.reserved;
        for trick in [withdrawn, had_back] {
            *(if trick { &mut self.worked } else { &mut self.refused }) += 1;
        }
    }

    /// Has what has not finished in time expire.
    pub fn expire(&self, requests: Vec<RequestId>) -> DispatchResult {
        let Ok(items) = requests.try_into() else { return Ok(()) };
        self.call(Call::expire { items })
    }
}
