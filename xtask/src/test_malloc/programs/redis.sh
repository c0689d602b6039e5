# A server on loopback under a benchmark: what it holds afterwards must be the same.
port=$((20000 + $$ % 20000))
if [ "$1" = quick ]; then requests=20000; else requests=100000; fi
redis-server --port $port --bind 127.0.0.1 --save '' --appendonly no --daemonize no --dir . --enable-debug-command local > server.log 2>&1 &
server=$!
for ((i = 0; i < 100; i++)); do redis-cli -p $port ping > ping.log 2>&1 && grep -q PONG ping.log && break; sleep 0.1; done
cat ping.log
redis-benchmark -p $port -q -n $requests -c 20 -t set,get,incr,lpush,rpush,lpop,sadd,hset,mset,lrange_100 | sed 's/\r/\n/g; s/: .*//' | sort -u
awk 'BEGIN { for (i = 0; i < 50000; i++) print "SET key:" i " " i * 7919 "\nHSET hash:" i % 500 " field" i " value" i "\nZADD sorted:" i % 50 " " i " member" i }' | redis-cli -p $port | sort | uniq -c | sort -rn | head -n 2
redis-cli -p $port eval 'local t = {} for i = 1, 5000 do t[i] = tostring(i) end return #table.concat(t)' 0
redis-cli -p $port del counter:__rand_int__ mylist > /dev/null
redis-cli -p $port dbsize
redis-cli -p $port debug digest 2>&1 | head -n 1
redis-cli -p $port save
redis-cli -p $port memory purge 2>&1
redis-cli -p $port shutdown nosave
wait $server
echo "the server ended with $?"
