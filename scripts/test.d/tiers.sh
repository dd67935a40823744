# The tiers of scripts/test: sourced by it, never run.

# The lane of a tier: what compiles and computes runs beside what waits.
lane_of() { # TIER
    case $1 in
        static | concurrent | unit | it | posix | newcomer) echo computing ;;
        mounted | clients) echo waiting ;;
        *) die "unknown tier '$1': static, concurrent, unit, it, posix, newcomer, mounted or clients" ;;
    esac
}

# Runs one tier.
run() { # TIER
    case $1 in
        static)
            yield
            scripts/check
            ;;
        concurrent)
            yield
            cargo test --profile quick --workspace --features laminafs/shuttle --test concurrent
            ;;
        unit) suites laminafs lamina laminafs_testing ;;
        it) suites it serve volumes backup kube claims pods csi front containers ;;
        posix) interruptible scripts/posix ours pjdfstest fsx ;;
        mounted) suite mounted --test-threads 1 ;;
        clients) suite clients ;;
        newcomer) interruptible scripts/newcomer ;;
    esac
}

# Lets the other lane go first: compilers take all that they get.
yield() { renice -n 19 "$BASHPID" >/dev/null; }

# Runs a program whose children end by SIGINT: those of a lane, which is in the background, would ignore it.
interruptible() { env --default-signal=INT,QUIT "$@"; }

# Runs test programs that were built, without cargo: one that builds for the other lane has its lock.
suites() { # NAME...
    local name failed=0
    for name in "$@"; do suite "$name" || failed=1; done
    return "$failed"
}

suite() { # NAME [ARGUMENT...]
    local name=$1 dir program
    shift
    read -r _ dir program < <(grep "^$name " "$logs/programs") || die "no test program '$name' was built"
    echo "# $name: $program"
    (cd "$dir" && CARGO_MANIFEST_DIR=$dir interruptible "$program" "$@") || { echo "error: $name fails" && return 1; }
}
