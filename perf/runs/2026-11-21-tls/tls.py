#!/usr/bin/env python3
"""Fan-out over TCP, TLS, WebSocket and WSS: RingMQ beside Mosquitto, interleaved; then plain clients during a
storm of TLS handshakes. Usage: tls.py ROUNDS FOLDER (FOLDER has ca.pem, s.pem, s.key)."""
import json, os, statistics, subprocess, sys, tempfile, time
ROUNDS, FOLDER = int(sys.argv[1]), sys.argv[2]
LOADGEN, RINGMQ = 'target/release/loadgen', 'target/release/ringmq'
PORTS = {'mqtt': 31883, 'mqtts': 38883, 'ws': 38083, 'wss': 38084}

def ringmq():
    tables = ''.join(f'[[listener]]\nurl = "{s}://127.0.0.1:{p}"\n' for s, p in PORTS.items())
    text = tables + f'[tls]\ncertificate = "{FOLDER}/s.pem"\nkey = "{FOLDER}/s.key"\n'
    return [RINGMQ, '--shards', '1', '--cpus', '0', '--config'], text

def mosquitto():
    text = f'''user root
set_tcp_nodelay true
allow_anonymous true
max_queued_messages 0
max_inflight_messages 0
listener {PORTS["mqtt"]} 127.0.0.1
listener {PORTS["mqtts"]} 127.0.0.1
certfile {FOLDER}/s.pem
keyfile {FOLDER}/s.key
'''
    return ['mosquitto', '-c'], text

def start(make):
    command, text = make()
    file = tempfile.NamedTemporaryFile('w', suffix='.conf', delete=False)
    file.write(text); file.close()
    os.chmod(file.name, 0o644)
    p = subprocess.Popen(['taskset', '-c', '0'] + command + [file.name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(0.7)
    return p

def load(scheme, pid, args):
    r = subprocess.run(['taskset', '-c', '1', LOADGEN, *args, '--broker', f'{scheme}://localhost:{PORTS[scheme]}', '--pid', str(pid),
                        '--ca', f'{FOLDER}/ca.pem', '--json', '--quiet'], capture_output=True, text=True)
    j = json.loads(r.stdout)
    return j

W = {'fan-out 1:500, 64 B, 1 in flight': ['fanout', '--subscribers=500', '--window=1', '--size=64', '--duration=3s', '--warmup=1s'],
     'fan-out 1:500, 64 B, 16 in flight': ['fanout', '--subscribers=500', '--window=16', '--size=64', '--duration=3s', '--warmup=1s'],
     'fan-out 1:500, 4 KiB, 4 in flight': ['fanout', '--subscribers=500', '--window=4', '--size=4096', '--duration=3s', '--warmup=1s']}
out = {}
for round in range(ROUNDS):
    for name, args in W.items():
        for broker, make, schemes in (('ringmq', ringmq, PORTS), ('mosquitto', mosquitto, ('mqtt', 'mqtts'))):
            p = start(make)
            for scheme in schemes:
                j = load(scheme, p.pid, args)
                row = (j['per_delivery']['broker_us'], j['per_delivery']['own_us'], j['delivered']['messages_per_second'], j['is_clean'])
                out.setdefault((name, broker, scheme), []).append(row)
                print(round, name, broker, scheme, row, flush=True)
            p.terminate(); p.wait()
m = lambda rows, i: statistics.median(r[i] for r in rows)
for (name, broker, scheme), rows in out.items():
    print(f'| {name} | {broker} | {scheme} | {m(rows,0):.2f} | {m(rows,1):.2f} | {m(rows,2):,.0f} | {all(r[3] for r in rows)} |')

# Plain pairs at 1,000/s, alone and beside TLS connects as fast as they come.
for round in range(ROUNDS):
    for broker, make in (('ringmq', ringmq), ('mosquitto', mosquitto)):
        for storm in (False, True):
            p = start(make)
            side = None
            if storm:
                side = subprocess.Popen(['taskset', '-c', '1', LOADGEN, 'connect', '--clients=2000', '--hold=0s', '--broker', f'mqtts://localhost:{PORTS["mqtts"]}',
                                         '--ca', f'{FOLDER}/ca.pem', '--json', '--quiet'], stdout=subprocess.PIPE, text=True)
            j = load('mqtt', p.pid, ['p2p', '--pairs=50', '--rate=1000', '--duration=4s'])
            connects = None
            if side:
                sj = json.loads(side.communicate()[0])
                connects = (sj['clients'], round_ := sj['spans'][0]['elapsed_s'])
            d = j['latency']['deliver']
            print('storm' if storm else 'alone', round, broker, 'p50 ms', d['p50'] / 1e6, 'p99', d['p99'] / 1e6, 'p99.9', d['p99.9'] / 1e6, 'max', d['max'] / 1e6, 'connects', connects, flush=True)
            p.terminate(); p.wait()
