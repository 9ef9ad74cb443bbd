#!/bin/sh
# Says whether this machine has what the project needs.
#
#   check_machine.sh python [NAME...]   prints the first NAME that is Python 3.11 and can make environments
#   check_machine.sh java               prints nothing when Spark will find a Java it runs on
#
# When something is missing: one line on the error stream that says what to install, exit code 2.

fail() {
    echo "$1" >&2
    exit 2
}

check_python() {
    found=
    for name in "$@"; do
        # Run it: a shim of a version manager may be on the PATH with no Python behind it.
        version=$("$name" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
        if [ "$version" = 3.11 ]; then
            "$name" -c 'import ensurepip, venv' >/dev/null 2>&1 ||
                fail "$name cannot make virtual environments: install its venv package (Debian, Ubuntu: python3.11-venv)"
            echo "$name"
            return
        fi
        found=" (found $name, which is Python $version)"
    done
    fail "Python 3.11 is needed$found: install it, or say where it is with PYTHON=/path/to/python3.11"
}

check_java() {
    wanted="install Java 17 (Spark 4.2 runs on 17, 21 and 25)"
    # Spark looks at JAVA_HOME first, so a good java on the PATH does not help when JAVA_HOME is wrong.
    if [ -n "$JAVA_HOME" ]; then
        java=$JAVA_HOME/bin/java
        [ -x "$java" ] || fail "JAVA_HOME is $JAVA_HOME, which has no bin/java: correct or unset it, or $wanted"
        remedy="$wanted and let JAVA_HOME name it"
    else
        java=java
        command -v java >/dev/null || fail "No Java found: $wanted"
        remedy="$wanted, or let JAVA_HOME name one"
    fi
    version=$("$java" -version 2>&1 | sed -n 's/.* version "\([^"]*\)".*/\1/p' | head -n 1)
    major=${version%%[!0-9]*}
    [ -n "$major" ] || fail "$java does not say its version: $remedy"
    if [ "$major" -lt 17 ] || [ "$major" -gt 25 ]; then
        fail "$java is Java $version: $remedy"
    fi
}

what=$1
[ $# -eq 0 ] || shift
case $what in
    python) check_python "$@" ;;
    java) check_java ;;
    *) fail "usage: $0 python [NAME...] | java" ;;
esac
