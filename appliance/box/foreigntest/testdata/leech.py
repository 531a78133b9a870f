# A leecher on libtorrent. Its argument is JSON: source, dir, encrypted. It
# prints how it sees its torrent, a line of JSON at a time, and ends with 0 when
# the torrent is complete and written.
import json
import sys

import libtorrent as lt

options = json.loads(sys.argv[1])
policy = lt.enc_policy.forced if options["encrypted"] else lt.enc_policy.disabled
level = lt.enc_level.rc4 if options["encrypted"] else lt.enc_level.plaintext
session = lt.session({
    "listen_interfaces": "127.0.0.1:0",
    "outgoing_interfaces": "127.0.0.1",
    "enable_dht": False,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "enable_incoming_utp": False,
    "enable_outgoing_utp": False,
    "out_enc_policy": int(policy),
    "in_enc_policy": int(policy),
    "allowed_enc_level": int(level),
    "alert_mask": lt.alert.category_t.all_categories,
})
source = options["source"]
if source.startswith("magnet:"):
    params = lt.parse_magnet_uri(source)
else:
    params = lt.add_torrent_params()
    params.ti = lt.torrent_info(source)
params.save_path = options["dir"]
params.flags &= ~lt.torrent_flags.paused & ~lt.torrent_flags.auto_managed
params.flags |= lt.torrent_flags.disable_dht | lt.torrent_flags.disable_lsd | lt.torrent_flags.disable_pex
torrent = session.add_torrent(params)

flushing = False
while True:
    session.wait_for_alert(200)
    for alert in session.pop_alerts():
        if isinstance(alert, lt.cache_flushed_alert):
            sys.exit(0)
        if isinstance(alert, (lt.torrent_error_alert, lt.file_error_alert, lt.peer_error_alert,
                              lt.peer_disconnected_alert, lt.hash_failed_alert)):
            print("alert:", alert.message(), file=sys.stderr, flush=True)
    status = torrent.status()
    if status.is_seeding and not flushing:
        flushing = True
        torrent.flush_cache()
    print(json.dumps({
        "error": status.errc.message() if status.errc.value() else "",
        "metadata": status.has_metadata,
        "done": status.total_done,
        "received": status.total_payload_download,
        "peers": [{"choked": bool(p.flags & p.remote_choked), "interested": bool(p.flags & p.interesting),
                   "ready": not p.flags & (p.handshake | p.connecting)} for p in torrent.get_peer_info()],
    }), flush=True)
