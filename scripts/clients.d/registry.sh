# Sourced by tests/clients/pull.sh: a registry of its own on a free port of this machine.

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# Starts docker-registry on $scratch/registry, with the lines $tls if there are any; sets $host, $registry_pid. Its log
# is $scratch/registry.log.
registry() { # [HTPASSWD-FILE]
    host=127.0.0.1:$(free_port)
    cat >"$scratch/registry.yml" <<END
version: 0.1
storage:
  filesystem:
    rootdirectory: $scratch/registry
http:
  addr: $host
${tls:-}
${1:+auth:
  htpasswd:
    realm: test
    path: $1}
END
    docker-registry serve "$scratch/registry.yml" >"$scratch/registry.log" 2>&1 </dev/null &
    registry_pid=$!
    for _ in $(seq 100); do
        ! (: >"/dev/tcp/${host%:*}/${host#*:}") 2>/dev/null || return 0
        sleep 0.1
    done
    die "docker-registry does not listen: $(tail -n 1 "$scratch/registry.log")"
}

# The bytes that the registry sent of blobs, and how often, since the log was LINES long.
sent() { # LINES
    tail -n "+$(($1 + 1))" "$scratch/registry.log" | python3 -c '
import re, sys
lines = [l for l in sys.stdin if "response completed" in l and "/blobs/" in l and "GET" in l]
print(sum(int(re.search(r"http.response.written=(\d+)", l)[1]) for l in lines), len(lines))'
}
log_lines() { wc -l <"$scratch/registry.log"; }
