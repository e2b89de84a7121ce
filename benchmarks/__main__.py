"""Run all benchmarks, or those that are named: `python -m benchmarks [background] [webhooks] ...`."""

import subprocess
import sys
from pathlib import Path


def main() -> int:
    """Run each script in a process of its own, so that none leaves threads or caches to the next."""
    scripts = {path.stem: path for path in sorted(Path(__file__).parent.glob("[!_]*.py"))}
    names = sys.argv[1:] or list(scripts)
    unknown = [name for name in names if name not in scripts]
    if unknown:
        print(f"No benchmark {', '.join(unknown)}. There are: {', '.join(scripts)}.", file=sys.stderr)
        return 2
    failed = []
    for name in names:
        print(f"\n## {name}\n", flush=True)
        if subprocess.run([sys.executable, scripts[name]]).returncode:
            failed.append(name)
    if failed:
        print(f"\nFailed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
