// What an operator or client does with polkadot-js, as one program with a command each. Prints JSON lines.
//
//   node chain.mjs WS decode                      every constant, call and event of the metadata has a name and type
//   node chain.mjs WS deposit SURI TOKENS         deposits for inference, waits until it is in a finalised block
//   node chain.mjs WS delegate SURI KEY TOKENS    lets KEY (an address) spend up to TOKENS
//   node chain.mjs WS watch REQUEST_ID SECONDS    prints the events of a request until a verdict came (or time is over)
//   node chain.mjs WS record REQUEST_ID           prints the stored record
//   node chain.mjs WS authorities                 prints the BABE and GRANDPA authorities with their weights
//   node chain.mjs WS issuance FROM TO            prints what changed total issuance between two blocks
//   node chain.mjs WS propose-upgrade SURI WASM   asks the hosts by referendum whether this runtime may be enacted
//   node chain.mjs WS vote SURI INDEX             votes for a referendum with the weight of a host
//   node chain.mjs WS upgrade WASM                enacts a runtime that the referendum authorized

import { readFileSync } from 'node:fs';
import { ApiPromise, Keyring, WsProvider } from '@polkadot/api';

const TOKEN = 10n ** 12n;
const [url, command, ...args] = process.argv.slice(2);

function print(value) {
  console.log(JSON.stringify(value));
}

async function connect() {
  const api = new ApiPromise({ provider: new WsProvider(url, 1000, {}, 10_000), noInitWarn: true });
  const deadline = new Promise((_, reject) => setTimeout(() => reject(new Error(`${url} does not answer`)), 60_000).unref());
  await Promise.race([api.isReadyOrError, deadline]);
  return api;
}

// Resolves with the events of the extrinsic once it is finalised; rejects with the module's error.
function submit(api, suri, extrinsic) {
  const signer = new Keyring({ type: 'sr25519' }).addFromUri(suri);
  return follow(api, (tell) => extrinsic.signAndSend(signer, tell));
}

// The same for an extrinsic that needs no signature.
function submitBare(api, extrinsic) {
  return follow(api, (tell) => extrinsic.send(tell));
}

function follow(api, send) {
  return new Promise((resolve, reject) => {
    send(({ status, events, dispatchError }) => {
      if (dispatchError) {
        const known = dispatchError.isModule && api.registry.findMetaError(dispatchError.asModule);
        reject(new Error(known ? `${known.section}.${known.name}: ${known.docs.join(' ')}` : dispatchError.toString()));
      } else if (status.isFinalized) {
        resolve(events.map(({ event }) => ({ name: `${event.section}.${event.method}`, data: event.data.toHuman() })));
      } else if (status.isInvalid || status.isDropped || status.isUsurped) {
        reject(new Error(`transaction ${status.type}`));
      }
    }).catch(reject);
  });
}

const commands = {
  async decode(api) {
    const pallets = api.runtimeMetadata.asLatest.pallets.map((pallet) => pallet.name.toString());
    // Every event of the last blocks decodes, and the storage that clients read has a type.
    const events = await api.query.system.events();
    print({ pallets, calls: Object.keys(api.tx.inference), epoch: (await api.query.epochs.current()).toHuman(), events: events.length });
  },

  async deposit(api, [suri, tokens]) {
    print(await submit(api, suri, api.tx.inference.deposit(BigInt(tokens) * TOKEN)));
  },

  async delegate(api, [suri, key, tokens]) {
    print(await submit(api, suri, api.tx.inference.delegate(key, BigInt(tokens) * TOKEN)));
  },

  async 'propose-upgrade'(api, [suri, wasm]) {
    const authorize = api.tx.system.authorizeUpgrade(api.registry.hash(readFileSync(wasm)));
    const proposal = { Inline: authorize.method.toHex() };
    const index = (await api.query.referenda.referendumCount()).toNumber();
    print(await submit(api, suri, api.tx.referenda.submit({ system: 'Root' }, proposal, { After: 0 })));
    print(await submit(api, suri, api.tx.referenda.placeDecisionDeposit(index)));
    print({ index });
  },

  async vote(api, [suri, index]) {
    print(await submit(api, suri, api.tx.governance.vote(Number(index), true)));
  },

  // Anyone may bring the code: what was authorized is its hash.
  async upgrade(api, [wasm]) {
    print(await submitBare(api, api.tx.system.applyAuthorizedUpgrade(`0x${readFileSync(wasm).toString('hex')}`)));
  },

  // Authority sets with their weights, by session key's owner where one is known.
  async authorities(api) {
    const owners = new Map();
    for (const [key, keys] of await api.query.session.nextKeys.entries()) {
      const owner = key.args[0].toString();
      for (const one of Object.values(keys.toJSON())) owners.set(one, owner);
    }
    const set = (list) => list.map(([key, weight]) => ({ owner: owners.get(key.toHex()) ?? null, weight: weight.toString() }));
    print({ babe: set(await api.query.babe.authorities()), grandpa: set(await api.query.grandpa.authorities()) });
  },

  // Every event of rewards and every change of total issuance in a range of finalised blocks.
  async issuance(api, [from, to]) {
    const events = [];
    const at = async (number) => api.at(await api.rpc.chain.getBlockHash(number));
    for (let number = Number(from) + 1; number <= Number(to); number += 1) {
      for (const { event } of await (await at(number)).query.system.events()) {
        const name = `${event.section}.${event.method}`;
        const names = event.data.names ?? [];
        const amount = event.data[names.indexOf('amount')];
        const moves = ['rewards.Minted', 'rewards.Burned', 'balances.BurnedDebt', 'balances.Issued', 'balances.Rescinded', 'balances.Minted', 'balances.Burned', 'balances.Slashed', 'balances.MintedCredit', 'balances.DustLost', 'rewards.Claimed'];
        if (moves.includes(name)) events.push({ block: number, name, data: event.data.toJSON(), amount: amount?.toString() });
      }
    }
    const issuance = async (number) => (await (await at(number)).query.balances.totalIssuance()).toString();
    print({ before: await issuance(Number(from)), after: await issuance(Number(to)), events });
  },

  async record(api, [requestId]) {
    const id = (await api.query.inference.requestIndex(requestId)).toJSON();
    const record = id && (await api.query.inference.inferences(id.epoch, id.index));
    print({ id, record: record?.toHuman() ?? null });
  },

  async watch(api, [requestId, seconds]) {
    const seen = new Set();
    let place = null;
    const belongs = (event) => {
      const data = event.data.toJSON();
      const names = event.data.names ?? [];
      const field = (name) => data[names.indexOf(name)];
      if ((field('requestId') ?? field('request_id')) === requestId) {
        place = field('id') ?? place;
        return true;
      }
      return place !== null && JSON.stringify(field('id')) === JSON.stringify(place);
    };
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, Number(seconds) * 1000);
      let next = null;
      let working = Promise.resolve();
      const read = async (number) => {
        const hash = await api.rpc.chain.getBlockHash(number);
        const events = await (await api.at(hash)).query.system.events();
        for (const { event } of events) {
          if (!['inference', 'verification'].includes(event.section) || !belongs(event)) continue;
          seen.add(event.method);
          print({ block: number, name: `${event.section}.${event.method}`, data: event.data.toHuman() });
        }
        if (['Started', 'Finished', 'Delivered', 'VerdictSubmitted'].every((name) => seen.has(name))) {
          clearTimeout(timer);
          resolve();
        }
      };
      // Finalised blocks only, each once and in order; the first one looks a few blocks back.
      api.rpc.chain.subscribeFinalizedHeads((header) => {
        const number = header.number.toNumber();
        working = working.then(async () => {
          for (next = next ?? Math.max(1, number - 20); next <= number; next += 1) await read(next);
        });
      });
    });
  },
};

const api = await connect();
try {
  if (!commands[command]) throw new Error(`unknown command ${command}; one of ${Object.keys(commands).join(', ')}`);
  await commands[command](api, args);
  process.exitCode = 0;
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
}
process.exit();
