# Objects, text, JSON, threads and processes. The library for CPython serves small objects.
if [ "$1" = quick ]; then rounds=20000; else rounds=200000; fi
export PYTHONHASHSEED=0 PYTHONDONTWRITEBYTECODE=1
python3 - "$rounds" <<'END'
import collections, decimal, hashlib, io, itertools, json, multiprocessing, re, subprocess, sys, threading, zlib
rounds = int(sys.argv[1])

class Node:
    def __init__(self, value, children): self.value, self.children = value, children

def tree(depth): return Node(depth, [tree(depth - 1) for _ in range(3)] if depth else [])
def total(node): return node.value + sum(map(total, node.children))
print(total(tree(9)))

words = collections.defaultdict(list)
for i in range(rounds * 5): words["key%d" % (i * 7919 % 10007)].append(str(i))
print(len(words), hashlib.sha256(json.dumps(words, sort_keys=True).encode()).hexdigest())
text = " ".join("word%d" % i for i in range(rounds))
print(len(re.findall(r"\bword(\d*7)\b", text)), zlib.crc32(zlib.compress(text.encode(), 9)))
print(sum(len(str(decimal.Decimal(i) / 7)) for i in range(1, rounds // 4)))

results = [None] * 4
def work(at):
    rows = [bytearray(i % 3000) for i in range(rounds // 4)]
    results[at] = sum(map(len, rows)) + len(json.loads(json.dumps([{"a": [i] * 10} for i in range(2000)])))
threads = [threading.Thread(target=work, args=(at,)) for at in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(results)

def square(n): return sum(i * i for i in range(n % 1000))
with multiprocessing.get_context("fork").Pool(2) as pool: print(sum(pool.map(square, range(2000))))
print(subprocess.run([sys.executable, "-c", "print(len([{} for _ in range(100000)]))"], capture_output=True, text=True).stdout)
buffer = io.BytesIO()
for i in range(rounds): buffer.write(b"x" * (i % 100))
print(len(buffer.getvalue()), sum(1 for _ in itertools.permutations(range(8))))
END
