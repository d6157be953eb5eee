"""Launches a sweep from Python: on this machine, or on a Ray cluster when given its address.

    python cluster/driver.py search_spaces/quickstart.toml
    python cluster/driver.py search_spaces/quickstart.toml --address auto

On a cluster SHOWHOW_HOME must be a folder that every node can reach.
"""

import argparse
import sys

from showhow import Study, UserError, run_study

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", help="a study file")
    parser.add_argument("--address", help='a Ray cluster\'s address, or "auto"')
    chosen = parser.parse_args()

    try:
        result = run_study(Study.load(chosen.study), address=chosen.address, say=print)
    except UserError as mistake:
        sys.exit(str(mistake))
    for row in result.rows:
        print(row.arm, row.accuracies)
    print(*result.conclusion, sep="\n")
