# The keeper: stands between us and one server, holding the read end of a pipe whose only write end is ours. Closing the
# pipe stops the server, and the kernel closes it for us however we die, kill -9 included: one way to stop for every case.
# Should this shell be killed itself, its waiting half lives on and does the same.
#
# usage: keeper.sh <signal that stops the server> <directory to remove afterwards, or ""> <command line of the server>
exec 3<&0 </dev/null
signal=$1 erase=$2
shift 2
"$@" 3<&- &
server=$!
(
  read -r _ <&3
  kill -s "$signal" "$server"
  tries=0
  while kill -0 "$server" && [ $tries -lt 200 ]; do
    sleep 0.1
    tries=$((tries + 1))
  done
  kill -s KILL "$server"
) 2>/dev/null &
watcher=$!
wait "$server"
kill "$watcher" 2>/dev/null
[ -z "$erase" ] || rm -rf -- "$erase"
