"""Asks `aics-tlog`, an independent implementation of the C2SP log formats, what it thinks of a log.

usage: tlog_peer.py PREFIX VERIFIER-KEY QUORUM [WITNESS-KEY ...]

It verifies the checkpoint with its cosignatures, every tile and every entry bundle against the
signed root, and prints size, root and the number of bundles as JSON.
"""

import json
import sys
import urllib.request

from aics_tlog import HttpTileReader, audit_tiles, parse_note, parse_vkey, verify_checkpoint


def main():
    prefix, log_key, quorum = sys.argv[1], parse_vkey(sys.argv[2]), int(sys.argv[3])
    witnesses = [parse_vkey(text) for text in sys.argv[4:]]
    with urllib.request.urlopen(prefix + "/checkpoint", timeout=30) as answer:
        note = parse_note(answer.read())
    verified = verify_checkpoint(note, log_key, witnesses, quorum)
    if not verified.ok:
        sys.exit("the checkpoint is refused: %s" % verified.error)
    size, root = verified.size, verified.root
    report = audit_tiles(HttpTileReader([prefix + "/"], proxies={}), size, root)
    print(json.dumps({"size": size, "root": root.hex(), "report": str(report)}))


main()
