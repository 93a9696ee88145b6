"""`vllm serve`, also where its console script is missing (the CPU wheel's)."""

import sys

from toploc_proxy.engines.guards import load
from toploc_proxy.engines.vllm.reliances import CLI_ENV_SETUP
from vllm.entrypoints.cli.serve import ServeSubcommand
from vllm.utils.argparse_utils import FlexibleArgumentParser

if __name__ == "__main__":
    load(CLI_ENV_SETUP)()
    parser = FlexibleArgumentParser()
    serve = ServeSubcommand()
    serve.subparser_init(parser.add_subparsers(dest="subparser"))
    args = parser.parse_args(["serve", *sys.argv[1:]])
    serve.validate(args)
    serve.cmd(args)
