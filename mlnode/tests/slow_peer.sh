#!/bin/sh
# A peer for `starling-mlnode bench` that says it needs a second for everything.
echo '{"ready": "slow"}'
while read -r _; do
  echo '{"prefill": 1.0, "decode": 1.0}'
done
