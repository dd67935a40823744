# The tiers of scripts/test: sourced by it, never run.

# Runs one tier.
run() { # TIER
    case $1 in
        static) scripts/check ;;
        unit) cargo test --profile quick --workspace --no-fail-fast --lib --bins ;;
        it) cargo test --profile quick --workspace --no-fail-fast --test it --test serve --test volumes --test backup --test kube \
            --test claims --test pods --test csi --test front --test containers ;;
        concurrent) cargo test --profile quick --workspace --features laminafs/shuttle --test concurrent ;;
        mounted) cargo test --profile quick --workspace --test mounted -- --test-threads 1 ;;
        posix) scripts/posix ours pjdfstest fsx ;;
        clients)
            local failed=0
            scripts/clients || failed=1
            scripts/readme || failed=1
            return "$failed"
            ;;
        *) die "unknown tier '$1'" ;;
    esac
}

# Tiers that build for minutes and mount nothing: they run beside `clients`, which waits for servers and packages.
build_beside() { # TIER ...
    local tier status begun
    # Its own build is done, so neither waits for the lock of the other's.
    until [ -s "$logs/clients.log" ] || [ "$SECONDS" -gt 300 ]; do sleep 1; done
    for tier in "$@"; do
        status=0 begun=$SECONDS
        (run "$tier") >"$logs/$tier.log" 2>&1 </dev/null || status=$?
        echo "$status $((SECONDS - begun))" >"$logs/$tier.status"
    done
}

