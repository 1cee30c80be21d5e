#!/usr/bin/env python3
"""The README's example is examples/hello/hello.cc, word for word, and its links and commands lead somewhere."""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def main():
    readme = (ROOT / 'README.md').read_text(encoding='utf-8')
    findings = []
    blocks = re.findall(r'```cpp\n(.*?)```', readme, re.DOTALL)
    hello = (ROOT / 'examples/hello/hello.cc').read_text(encoding='utf-8')
    # The program's opening comment is for readers of examples/.
    program = re.sub(r'\A(//[^\n]*\n)+\n?', '', hello)
    if program not in blocks:
        findings.append('no ```cpp block of README.md is examples/hello/hello.cc; copy the program there')
    prose = re.sub(r'```.*?```', '', readme, flags=re.DOTALL)
    for target in re.findall(r'\]\((?!https?://|#)([^)#]+)', prose):
        if not (ROOT / target).exists():
            findings.append(f'README.md links to {target}, which is not there')
    for command in re.findall(r'^(deploy/\w+)', readme, re.MULTILINE):
        if not (ROOT / command).exists():
            findings.append(f'README.md names {command}, which is not there')
    for finding in findings:
        print(finding)
    return 1 if findings else 0


if __name__ == '__main__':
    sys.exit(main())
