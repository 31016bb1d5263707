"""Starling's sampler inside of vLLM: a logits processor which has the ML node draw every token.

vLLM loads it with `--logits-processors starling_vllm:Sampler`. It decides nothing: for each row of a request of the node's it
sends the most probable tokens with their log-probabilities through a Unix socket, and leaves the token that comes back as the
only possible one. So there is one quantisation, one sampler and one grammar compiler: the node's. Rows of other requests are
left alone.

`STARLING_SAMPLER` in the environment is the path of the node's socket. A request is the node's if it has `vllm_xargs`:

- `starling_key`: names it to the node.
- `starling_top`: how many tokens the node wants to see.
- `starling_asks`: 1 if logits are to be changed first (penalties, biases, grammars), or log-probabilities of certain tokens are wanted.

The frames are described in `wire.rs` of the node. All numbers are little-endian.
"""

import json
import logging
import os
import select
import socket
import struct

import numpy
import torch
from vllm.v1.sample.logits_processor import LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

PROTOCOL = 1
HELLO, ASK, ROWS = 0, 1, 2
# In place of a token: the node does not know this request (any more).
UNKNOWN = 0xFFFFFFFF
# In place of the logits of tokens that are not allowed, as in the node's own engine.
DISALLOWED = -1e30
# A node that does not answer for so long is taken for gone; in seconds.
PATIENCE = 60.0

log = logging.getLogger("vllm.starling")


class Request:
    """A row's request."""

    def __init__(self, key, top, asks, output):
        self.key = key
        self.top = top
        self.asks = asks
        # vLLM's own list, which grows as tokens are sampled: its length is the position of the next one.
        self.output = output


class Sampler(LogitsProcessor):
    """The logits processor: one in each process that samples."""

    @classmethod
    def validate_params(cls, params):
        extra = params.extra_args or {}
        if "starling_key" not in extra:
            return
        for name in ("starling_key", "starling_top", "starling_asks"):
            if not isinstance(extra.get(name), int) or extra[name] < 0:
                raise ValueError(f"{name} must be a whole number that is not negative")

    def __init__(self, vllm_config, device, is_pin_memory):
        self.path = os.environ.get("STARLING_SAMPLER")
        if not self.path:
            raise RuntimeError(
                "STARLING_SAMPLER is not set: it must be the path of the socket that is configured in the ML node"
            )
        self.device = device
        self.requests = {}
        self.stream = None
        model = vllm_config.model_config
        self.hello = {
            "protocol": PROTOCOL,
            "model": str(model.model),
            "dtype": str(model.dtype).removeprefix("torch."),
            "quantization": model.quantization and str(model.quantization),
            "max_model_len": int(model.max_model_len),
            "max_logprobs": int(model.max_logprobs),
            "vocab_size": int(model.get_vocab_size()),
        }
        try:
            self.connect()
        except OSError as error:
            # An attached server may start before its node.
            log.warning("the ML node is not there yet (%s: %s); trying again with its first request", self.path, error)

    def is_argmax_invariant(self):
        return False

    def update_state(self, batch_update):
        process_dict_updates(self.requests, batch_update, self.request)

    @staticmethod
    def request(params, _prompt, output):
        extra = params.extra_args or {}
        if "starling_key" not in extra:
            return None
        return Request(extra["starling_key"], extra["starling_top"], extra["starling_asks"], output)

    def apply(self, logits):
        # Requests that left the batch may still be in the list of a batch that shrank.
        rows = [(row, request) for row, request in self.requests.items() if row < logits.shape[0]]
        if not rows:
            return logits
        try:
            if not self.connected():
                self.connect()
            self.draw(logits, rows)
        except OSError as error:
            # Whoever waits for these tokens is gone with the node: nothing that vLLM samples now is ever used.
            log.warning("the ML node is gone (%s)", error)
            self.close()
        return logits

    def draw(self, logits, rows):
        """Has the node draw the tokens of these rows, and leaves no other possible."""
        asked = self.ask(logits, rows)
        index = torch.tensor([row for row, _ in rows], device=logits.device)
        top = min(max(request.top for _, request in rows), logits.shape[1])
        chosen = logits.index_select(0, index)
        totals = chosen.logsumexp(dim=-1, keepdim=True)
        values, tokens = chosen.topk(top, dim=-1)
        values = (values - totals).cpu().numpy().astype("<f4")
        tokens = tokens.cpu().numpy().astype("<u4")
        frame = [struct.pack("<BI", ROWS, len(rows))]
        for place, (_, request) in enumerate(rows):
            count = min(request.top, top)
            frame.append(struct.pack("<QIB", request.key, len(request.output), count))
            frame.append(tokens[place, :count].tobytes())
            frame.append(values[place, :count].tobytes())
            wanted = asked.get(place, ())
            frame.append(struct.pack("<B", len(wanted)))
            if len(wanted):
                found = chosen[place, torch.from_numpy(wanted.astype("int64")).to(logits.device)] - totals[place]
                frame.append(found.cpu().numpy().astype("<f4").tobytes())
        reply = numpy.frombuffer(self.call(b"".join(frame)), dtype="<u4")
        if len(reply) != len(rows):
            raise ConnectionError("the ML node's answer has another number of rows")
        known = reply != UNKNOWN
        if known.any():
            index = index[torch.from_numpy(known).to(logits.device)]
            drawn = torch.from_numpy(reply[known].astype("int64")).to(logits.device)
            logits[index] = -float("inf")
            logits[index, drawn] = 0.0

    def ask(self, logits, rows):
        """Changes logits as the node says; returns the tokens that it asks for, by place in `rows`."""
        asking = [(place, row, request) for place, (row, request) in enumerate(rows) if request.asks]
        if not asking:
            return {}
        frame = [struct.pack("<BI", ASK, len(asking))]
        frame += [struct.pack("<QI", request.key, len(request.output)) for _, _, request in asking]
        reply = Reader(self.call(b"".join(frame)))
        asked = {}
        for place, row, _ in asking:
            changes = reply.array([("token", "<u4"), ("add", "<f4")], reply.number("<I"))
            if len(changes):
                tokens = torch.from_numpy(changes["token"].astype("int64")).to(logits.device)
                logits[row, tokens] += torch.from_numpy(changes["add"].astype("float32")).to(logits.device)
            words = reply.array("<u4", reply.number("<I"))
            if len(words):
                bits = numpy.unpackbits(words.view("u1"), bitorder="little")[: logits.shape[1]].astype(bool)
                allowed = numpy.zeros(logits.shape[1], dtype=bool)
                allowed[: len(bits)] = bits
                logits[row, torch.from_numpy(~allowed).to(logits.device)] = DISALLOWED
            asked[place] = reply.array("<u4", reply.number("<B"))
        return asked

    def connected(self):
        if self.stream is None:
            return False
        # The node says nothing that it was not asked for: what can be read now is the end of a node that was started again.
        poll = select.poll()
        poll.register(self.stream, select.POLLIN)
        if poll.poll(0):
            self.close()
        return self.stream is not None

    def connect(self):
        self.stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.stream.settimeout(PATIENCE)
        try:
            self.stream.connect(self.path)
            self.send(bytes([HELLO]) + json.dumps(self.hello).encode())
        except OSError:
            self.close()
            raise

    def close(self):
        if self.stream is not None:
            self.stream.close()
        self.stream = None

    def send(self, payload):
        self.stream.sendall(struct.pack("<I", len(payload)) + payload)

    def call(self, payload):
        self.send(payload)
        (length,) = struct.unpack("<I", self.receive(4))
        return self.receive(length)

    def receive(self, length):
        data = bytearray(length)
        view = memoryview(data)
        while view:
            count = self.stream.recv_into(view)
            if count == 0:
                raise ConnectionError("the ML node closed the connection")
            view = view[count:]
        return data


class Reader:
    """Reads numbers from a frame, one after another."""

    def __init__(self, data):
        self.data = data
        self.at = 0

    def number(self, form):
        (value,) = struct.unpack_from(form, self.data, self.at)
        self.at += struct.calcsize(form)
        return value

    def array(self, form, count):
        form = numpy.dtype(form)
        found = numpy.frombuffer(self.data, dtype=form, count=count, offset=self.at) if count else numpy.empty(0, form)
        self.at += count * form.itemsize
        return found
