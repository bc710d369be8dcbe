import subprocess, json, statistics, time, sys, signal
LG='target/release/loadgen'
out={}
def run(way, args):
    p=subprocess.Popen(['taskset','-c','0',LG,'floor','--listen','127.0.0.1:0','--way',way],stderr=subprocess.PIPE,text=True)
    line=p.stderr.readline(); addr=line.strip().split('//')[1]
    r=subprocess.run(['taskset','-c','1',LG]+args+['--broker',addr,'--pid',str(p.pid),'--json','--quiet'],capture_output=True,text=True)
    p.terminate(); p.wait()
    j=json.loads(r.stdout)
    return j['per_delivery']['machine_less_own_us'], j['delivered']['messages_per_second'], r.returncode
loads={'w1-64B':['fanout','--subscribers=1000','--window=1','--size=64','--duration=3s','--warmup=1s'],
       'w4-16K':['fanout','--subscribers=1000','--window=4','--size=16384','--duration=3s','--warmup=1s']}
for rnd in range(5):
    for name,args in loads.items():
        for way in ['plain','fixed-files','zero-copy','deferred']:
            try: res=run(way,args)
            except Exception as e: res=(None,None,str(e)[:80])
            out.setdefault((name,way),[]).append(res)
            print(rnd,name,way,res,flush=True)
for k,v in out.items():
    xs=[x[0] for x in v if x[0]]; ys=[x[1] for x in v if x[1]]
    print(k,'us',round(statistics.median(xs),3) if xs else None,'per s',round(statistics.median(ys)) if ys else None, [round(x,3) for x in xs])
