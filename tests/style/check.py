#!/usr/bin/env python3
"""Checks what compilers do not: layering, headers that stand alone, formatting, and words left behind.

  check.py layering|format|words [--root DIR]
  check.py headers --build DIR --compiler CXX [--only FOLDER]…   (headers include what they use)
  check.py selftest                                              (each check catches a planted fault)

Prints one line a finding, `file:line: what is wrong and the way out`, and exits 1 if there are any.
"""

import argparse
import concurrent.futures
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

SOURCES = {'.h', '.cc'}
TEXTS = SOURCES | {'.proto', '.py', '.sh', '.cmake', '.txt', '.md', '.yaml', '.yml', '.json', ''}
SKIPPED = {'build', '.git', '.cache'}
LINES_GUIDE = 800

# The layers, longest folder first where one lies in another. A module is the folder that an #include names; the SDK's
# installed headers are included as "flux/…". What is not listed as allowed is refused.
MODULES = [
    # (folder, name)
    ('client/fluxctl', 'fluxctl'),
    ('client', 'client'),
    ('worker', 'worker'),
    ('proto', 'proto'),
    ('store', 'store'),
    ('engine/core', 'core'),
    ('engine/visibility', 'visibility'),
    ('engine/shard', 'shard'),
    ('engine/dispatch', 'dispatch'),
    ('engine/schedule', 'schedule'),
    ('engine/server', 'server'),
    ('bench', 'bench'),
    ('examples', 'examples'),
    ('tests', 'tests'),
]
ALLOWED = {
    'proto': set(),
    'store': {'proto'},
    'core': {'proto'},
    'dispatch': {'proto', 'core'},
    'visibility': {'proto', 'core'},
    'shard': {'proto', 'core', 'visibility', 'store', 'dispatch'},
    'schedule': {'proto', 'core', 'visibility', 'store', 'dispatch', 'shard'},
    'server': {'proto', 'core', 'visibility', 'store', 'dispatch', 'shard', 'schedule'},
    'client': {'proto'},
    'fluxctl': {'proto', 'client'},
    'worker': {'proto', 'client'},
    # Examples see what a user sees: the installed headers.
    'examples': {'client', 'worker'},
    'bench': {'proto', 'store', 'client', 'worker', 'core', 'visibility', 'dispatch', 'shard',
              'server'},
    'tests': {name for _, name in MODULES},
}
# Installed headers show no gRPC and no generated code.
INSTALLED_BANNED = re.compile(r'grpc|\.pb\.h|rocksdb|spdlog|CLI/|CLI11')
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')

# Spelled in pieces, so that this file does not find itself.
LEFT_BEHIND = re.compile(r'\b(' + '|'.join(['TO' + 'DO', 'FIX' + 'ME', 'X' + 'XX', 'HA' + 'CK']) + r')\b')
UNFINISHED = re.compile(
    r'\b(' + '|'.join(['not ' + 'implemented', 'place' + 'holder', 'for ' + 'now,']) + r')(?!\w)',
    re.IGNORECASE)
# Folders of one developer's machine; /usr, /etc, /tmp, /var and /proc are everybody's.
MACHINE_PATH = re.compile(r'(?<![\w.$}/-])/(?:home|root|work|Users)/[\w.]')


def files(root, suffixes):
    """The tree's files: those under version control where there is git, else all but build folders."""
    root = pathlib.Path(root)
    names = None
    if (root / '.git').exists() and shutil.which('git'):
        git = ['git', '-c', 'safe.directory=*', '-C', str(root), 'ls-files', '-z']
        listed = subprocess.run(git, capture_output=True)
        if listed.returncode == 0:
            names = [pathlib.Path(n) for n in listed.stdout.decode().split('\0') if n]
    if names is None:
        names = [p.relative_to(root) for p in root.rglob('*') if p.is_file()]
        names = [n for n in names if not SKIPPED & set(n.parts)]
    return sorted(n for n in names if n.suffix in suffixes and (root / n).is_file())


def read_lines(path):
    return path.read_text(encoding='utf-8', errors='replace').splitlines()


def module_of(path):
    for folder, name in MODULES:
        if str(path).startswith(folder + '/'):
            return name
    return None


def module_of_include(target, sdk_headers):
    if target.startswith('flux/v1/'):
        return 'proto'
    if target.startswith('flux/'):
        return sdk_headers.get(target)
    return module_of(target)


def check_layering(root):
    root = pathlib.Path(root)
    findings = []
    sources = files(root, SOURCES)
    sdk_headers = {}
    for path in sources:
        for module in ('client', 'worker'):
            prefix = f'{module}/include/'
            if str(path).startswith(prefix):
                sdk_headers[str(path)[len(prefix):]] = module
    for path in sources:
        module = module_of(path)
        installed = str(path).startswith(('client/include/', 'worker/include/'))
        for number, line in enumerate(read_lines(root / path), 1):
            match = INCLUDE.match(line)
            if not match:
                continue
            target = match.group(2)
            other = module_of_include(target, sdk_headers)
            if module and other and other != module and other not in ALLOWED[module]:
                allowed = ', '.join(sorted(ALLOWED[module])) or 'nothing of ours'
                findings.append(f'{path}:{number}: {module} includes "{target}" of {other}; '
                                f'{module} may know: {allowed}')
            if installed and INSTALLED_BANNED.search(target):
                findings.append(f'{path}:{number}: installed headers show no {target}; move its use into the .cc')
            if path.suffix == '.h' and target.endswith('.cc'):
                findings.append(f'{path}:{number}: a header includes a source file')
    return findings


def check_words(root):
    root = pathlib.Path(root)
    findings = []
    for path in files(root, TEXTS):
        try:
            text = (root / path).read_bytes()
        except OSError:
            continue
        if b'\0' in text:
            continue
        lines = text.decode('utf-8', errors='replace').splitlines()
        for number, line in enumerate(lines, 1):
            code = path.suffix in SOURCES | {'.proto', '.py'}
            if match := LEFT_BEHIND.search(line) or (code and UNFINISHED.search(line)):
                findings.append(f'{path}:{number}: "{match.group(0)}": do it, or say in plain words what holds')
            if match := MACHINE_PATH.search(line):
                findings.append(f'{path}:{number}: "{match.group(0)}…" is a path of one machine')
        if path.suffix in SOURCES and len(lines) > LINES_GUIDE:
            print(f'warning: {path}: {len(lines)} lines, past {LINES_GUIDE}: is there a seam?')
    return findings


def check_format(root):
    root = pathlib.Path(root)
    tool = shutil.which('clang-format-14') or shutil.which('clang-format')
    if not tool:
        return ['clang-format is missing: install clang-format-14, or run deploy/test, which does']
    names = [str(n) for n in files(root, SOURCES)]
    if not names:
        return []
    command = [tool, '--dry-run', '-Werror', '--ferror-limit=1', *names]
    run = subprocess.run(command, cwd=root, capture_output=True, text=True)
    if run.returncode == 0:
        return []
    bad = sorted({line.split(':')[0] for line in run.stderr.splitlines() if 'error:' in line})
    if not bad:
        return [f'{tool} failed: {run.stderr.strip()}']
    return [f'{name}: not as clang-format has it; run: clang-format-14 -i {name}' for name in bad]


def syntax_check(compiler, root, build, includes):
    """Compiles a file that includes these headers and nothing else; returns the first error, or None."""
    root, build = pathlib.Path(root), pathlib.Path(build)
    folders = [root, root / 'client/include', root / 'worker/include', build / 'proto']
    command = [compiler, '-std=c++20', '-fsyntax-only', '-x', 'c++', '-', '-Wall', '-Wextra', '-Wno-unused',
               *(a for f in folders for a in ('-I', str(f)))]
    run = subprocess.run(command, input=''.join(f'#include "{i}"\n' for i in includes), capture_output=True,
                         text=True)
    if run.returncode == 0:
        return None
    return next((line for line in run.stderr.splitlines() if 'error:' in line), run.stderr.strip()[:400])


def first_includes(root, sources):
    """The headers that some source file includes before anything else: the build has compiled them alone."""
    found = set()
    for path in sources:
        for line in read_lines(root / path):
            if match := INCLUDE.match(line):
                target = match.group(2)
                for base in ('', 'client/include/', 'worker/include/', str(path.parent) + '/'):
                    found.add(os.path.normpath(base + target))
                break
    return found


def check_headers(root, build, compiler, only):
    """Each header includes what it uses. g++ compiles alone those that no source file includes first; clang++, which
    does not build the tree, sees them all in one file."""
    if not shutil.which(compiler):
        return [f'{compiler} is missing: run deploy/test, which installs it']
    root = pathlib.Path(root)
    headers = [h for h in files(root, {'.h'}) if not only or any(str(h).startswith(o) for o in only)]
    if not headers:
        return [f'no header under {", ".join(only)}: is the folder still called so?']
    findings = []
    for header in headers:
        guard = [line for line in read_lines(root / header) if line.startswith('#')][:2]
        if not (guard and (guard[0].startswith('#pragma once') or
                           [g.split()[0] for g in guard] == ['#ifndef', '#define'])):
            findings.append(f'{header}: has no include guard before everything else')
    if 'clang' in compiler:
        error = syntax_check(compiler, root, build, [root / h for h in headers])
        print(f'{len(headers)} headers in one file with {compiler}')
        return findings + ([f'the headers do not compile with {compiler}: {error}'] if error else [])
    compiled = first_includes(root, files(root, {'.cc'}))
    left = [h for h in headers if str(h) not in compiled]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        errors = list(pool.map(lambda h: syntax_check(compiler, root, build, [root / h]), left))
    print(f'{len(headers)} headers: {len(headers) - len(left)} stand first in a source file, '
          f'{len(left)} compiled alone with {compiler}')
    return findings + [f'{h}: does not compile alone: {e}' for h, e in zip(left, errors) if e]


def selftest():
    """Every kind of fault, planted in a tree of its own, is found; the same tree without it is clean."""
    word = 'TO' + 'DO'
    faults = [
        # (check, file, content, part of the finding)
        (check_layering, 'store/a.cc', '#include "engine/core/core.h"\n', 'store may know: proto'),
        (check_layering, 'proto/a.h', '#include "store/store.h"\n', 'proto may know: nothing of ours'),
        (check_layering, 'engine/core/a.cc', '  #  include "store/store.h"\n', 'core may know: proto'),
        (check_layering, 'engine/dispatch/a.cc', '#include "engine/shard/loop.h"\n', 'dispatch may know: core, proto'),
        (check_layering, 'client/src/a.cc', '#include "flux/worker.h"\n', 'client may know: proto'),
        (check_layering, 'client/src/a.cc', '#include "store/store.h"\n', 'client may know: proto'),
        (check_layering, 'worker/src/a.cc', '#include "engine/core/core.h"\n', 'worker may know: client, proto'),
        (check_layering, 'examples/a.cc', '#include "flux/v1/record.pb.h"\n', 'examples may know: client, worker'),
        (check_layering, 'client/include/flux/a.h', '#include <grpcpp/grpcpp.h>\n', 'installed headers show no'),
        (check_layering, 'worker/include/flux/a.h', '#include "flux/v1/worker.pb.h"\n', 'installed headers show no'),
        (check_words, 'store/a.cc', f'// {word}: later\n', word),
        (check_words, 'docs/a.md', 'see /ho' + 'me/someone/flux\n', 'path of one machine'),
        (check_format, 'store/a.cc', 'int   a ;\n', 'not as clang-format has it'),
    ]
    clean = {
        'store/a.cc': '#include "proto/bridge.h"\n',
        'engine/core/a.cc': '#include <vector>\n\n#include "flux/v1/record.pb.h"\n',
        'engine/shard/a.cc': '#include "engine/core/core.h"\n#include "store/store.h"\n',
        'worker/include/flux/worker.h': '#include "flux/task.h"\n',
        'client/include/flux/task.h': '#include <string>\n',
        'client/fluxctl/a.cc': '#include "flux/task.h"\n',
        'docs/a.md': 'Built in /usr/share/doc and ${DIR}/work/a.\n',
    }
    findings = []
    with tempfile.TemporaryDirectory() as directory:
        root = pathlib.Path(directory)
        shutil.copy(pathlib.Path(__file__).resolve().parents[2] / '.clang-format', root / '.clang-format')
        for name, content in clean.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(content)
        for check in (check_layering, check_words, check_format):
            findings += [f'selftest: {check.__name__} on a clean tree: {f}' for f in check(root)]
        for check, name, content, part in faults:
            path = root / name
            before = path.read_text() if path.exists() else None
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
            found = check(root)
            if not any(part in f for f in found):
                findings.append(f'selftest: {check.__name__} overlooked {content.strip()!r} in {name}; it said {found}')
            path.unlink() if before is None else path.write_text(before)
        function = 'inline std::string Name() { return "a"; }\n'
        guard = '#ifndef A_H_\n#define A_H_\n'
        (root / 'store/alone.h').write_text(guard + function + '#endif\n')
        (root / 'store/twice.h').write_text('struct Twice {};\n')
        (root / 'store/good.h').write_text(guard + '#include <string>\n' + function + '#endif\n')
        # Not compiled again: its source file includes it first, and the build would have failed.
        (root / 'store/first.h').write_text(guard + function + '#endif\n')
        (root / 'store/first.cc').write_text('#include "store/first.h"\n')
        for compiler in ('g++', 'clang++-14'):
            found = check_headers(root, root, compiler, ['store'])
            wanted = ['store/twice.h: has no include guard',
                      'store/alone.h: does not compile alone' if compiler == 'g++' else 'do not compile with']
            if len(found) != len(wanted) or not all(any(w in f for f in found) for w in wanted):
                findings.append(f'selftest: check_headers with {compiler} found {found}')
    return findings


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('check', choices=['layering', 'format', 'words', 'headers', 'selftest'])
    parser.add_argument('--root', default=pathlib.Path(__file__).resolve().parents[2])
    parser.add_argument('--build', help='the build folder, for generated headers')
    parser.add_argument('--compiler', default='g++')
    parser.add_argument('--only', action='append', default=[], help='only headers under this folder')
    arguments = parser.parse_args()
    if arguments.check == 'headers':
        if not arguments.build:
            parser.error('headers needs --build DIR')
        findings = check_headers(arguments.root, arguments.build, arguments.compiler, arguments.only)
    elif arguments.check == 'selftest':
        findings = selftest()
    else:
        findings = globals()['check_' + arguments.check](arguments.root)
    for finding in findings:
        print(finding)
    print(f'{arguments.check}: {len(findings)} findings' if findings else f'{arguments.check}: clean')
    return 1 if findings else 0


if __name__ == '__main__':
    sys.exit(main())
