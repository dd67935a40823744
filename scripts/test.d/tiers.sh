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
            scripts/newcomer || failed=1
            return "$failed"
            ;;
        *) die "unknown tier '$1'" ;;
    esac
}

# The tier that another one runs beside: one that waits for servers and packages, or has one test at a time.
host() { # TIER
    case $1 in posix) echo mounted ;; static | concurrent) echo clients ;; esac
}

# Whether a tier runs beside another one of these.
is_beside() { # TIER TIERS...
    local tier=$1 of
    of=$(host "$tier")
    shift
    [ -n "$of" ] && [[ " $* " == *" $of "* ]]
}

# Starts the tiers that run beside one, at a low priority.
start_beside() { # TIER TIERS...
    local tier=$1 other beside=""
    shift
    for other in "$@"; do [ "$(host "$other")" != "$tier" ] || beside="$beside $other"; done
    [ -n "$beside" ] || return 0
    : >"$logs/$tier.log"
    # shellcheck disable=SC2086
    (SECONDS=0 && renice -n 19 "$BASHPID" >/dev/null && run_beside "$tier" $beside) &
}

run_beside() { # TIER TIERS...
    local tier status begun of=$1
    shift
    # Its own build is done, so neither waits for the lock of the other's.
    until [ -s "$logs/$of.log" ] || [ "$SECONDS" -gt 300 ]; do sleep 1; done
    for tier in "$@"; do
        status=0 begun=$SECONDS
        (run "$tier") >"$logs/$tier.log" 2>&1 </dev/null || status=$?
        echo "$status $((SECONDS - begun))" >"$logs/$tier.status"
    done
}
