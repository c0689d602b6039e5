# Strings, arrays, functions, subshells and pipes.
if [ "$1" = quick ]; then rounds=4000; else rounds=40000; fi

declare -A words
text=
for ((i = 0; i < rounds; i++)); do
    words[key$((i * 7919 % 1000))]+=" $i"
    text=${text:0:2000}x$i
    text=${text//99/ninety-nine}
done
echo "${#words[@]} ${#text} ${text:100:60}"
for key in key1 key42 key999; do echo "$key ${#words[$key]} ${words[$key]: -20}"; done

fibonacci() { (($1 < 2)) && echo "$1" || echo $(($(fibonacci $(($1 - 1))) + $(fibonacci $(($1 - 2))))); }
fibonacci 9

for i in {1..30}; do (echo "subshell $i" | tr a-z A-Z | sed s/SUB/under/); done
printf '%s\n' {z..a}{9..0} | sort | uniq -c | awk '{ sum += $1 } END { print sum, NR }'
mapfile -t lines < <(seq 1 $rounds)
echo "${#lines[@]} ${lines[-1]}"
cat <<END
$(printf 'nested %s ' "$(echo "$(echo deep)")")
END
[[ "a1b22c333" =~ ([a-z])([0-9]+)c ]] && echo "${BASH_REMATCH[@]}"
exit 0
