#!/bin/sh
# Compares the Go benchmarks of this tree with those of a commit, in alternating runs on this
# machine. Prints ratios of time and memory, and fails if a benchmark allocates more often than
# before. Times only print: they depend on what else the machine does.
#
#   sh bench/compare.sh [BASE]    default: the previous commit
#   COUNT=6         rounds
#   BENCHTIME=200ms time per benchmark and round
#   BENCH=.         regular expression of the benchmarks
set -eu
cd "$(dirname "$0")/.."
GO=${GO:-go}
base=$(git rev-parse --verify "${1:-HEAD~1}^{commit}")
benchstat=golang.org/x/perf/cmd/benchstat@v0.0.0-20260908200009-22c9c6c9d4da

dir=$(mktemp -d)
trap 'git worktree remove --force "$dir/tree" 2>/dev/null || true; rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM
git worktree add --quiet --detach "$dir/tree" "$base"
mkdir "$dir/old" "$dir/new"

# Test programs of the packages that have benchmarks in both trees, named as their folders.
packages=$(grep -rl --include='*_test.go' '^func Benchmark' internal | xargs -n 1 dirname | sort -u)
common=
for package in $packages; do
	name=$(echo "$package" | tr / -)
	if ! grep -qs '^func Benchmark' "$dir/tree/$package"/*_test.go; then
		echo "new: $package"
		continue
	fi
	(cd "$dir/tree" && "$GO" test -c -o "$dir/old/$name" "./$package")
	"$GO" test -c -o "$dir/new/$name" "./$package"
	common="$common $package"
done
test -n "$common" || { echo "no package has benchmarks in both trees"; exit 0; }

run() { # TREE PACKAGE VERSION: the benchmarks of a package, added to the results of a version
	(cd "$1/$2" && "$dir/$3/$(echo "$2" | tr / -)" -test.run '^$' -test.bench "${BENCH:-.}" \
		-test.benchmem -test.benchtime "${BENCHTIME:-200ms}") >>"$dir/$3.txt"
}
round=0
while [ "$round" -lt "${COUNT:-6}" ]; do
	round=$((round + 1))
	echo "round $round" >&2
	for package in $common; do
		if [ $((round % 2)) = 1 ]; then # neither version always comes first
			run "$dir/tree" "$package" old
			run "$PWD" "$package" new
		else
			run "$PWD" "$package" new
			run "$dir/tree" "$package" old
		fi
	done
done

echo "old: $(git log -1 --format='%h %s' "$base")"
echo "new: this tree"
"$GO" run "$benchstat" "old=$dir/old.txt" "new=$dir/new.txt"

# The lowest count of all rounds: what a round allocates once is a fraction of an allocation per
# operation, and may round up.
awk '
	FNR == 1 { version++ }
	/^pkg:/ { package = $2 }
	/^Benchmark/ {
		for (i = 2; i < NF; i++) if ($(i + 1) == "allocs/op") {
			key = package " " $1
			if (!((version, key) in least) || $i < least[version, key]) least[version, key] = $i
			keys[key]
		}
	}
	END {
		for (key in keys) if ((1, key) in least && (2, key) in least) {
			compared++
			if (least[2, key] > least[1, key]) {
				print key ": " least[1, key] " allocations per operation became " least[2, key]
				worse = 1
			}
		}
		print compared + 0 " benchmarks compared"
		exit worse
	}
' "$dir/old.txt" "$dir/new.txt"
