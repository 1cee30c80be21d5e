// Completion scripts, generated from the command tree: what the tree has, the shells complete;
// nothing to keep in step.
#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "client/fluxctl/app.h"
#include "proto/bridge.h"

namespace flux::ctl {
namespace {

// One node of the tree as the scripts need it.
struct Node {
  std::string path;  // "workflow start"; empty for the root
  std::string description;
  std::vector<std::string> subcommands;
  struct Value {
    std::string names;  // "-o|--output"; empty for the positional argument
    const ValueHint* hint = nullptr;
  };
  std::vector<std::string> options;  // every name, global ones included
  std::vector<std::string> takes;    // those that a value follows
  std::vector<Value> values;
  std::vector<const CLI::Option*> own;  // for fish, which wants one line each
};

std::vector<std::string> Names(const CLI::Option& option) {
  std::vector<std::string> names;
  for (const std::string& name : option.get_snames()) names.push_back(absl::StrCat("-", name));
  for (const std::string& name : option.get_lnames()) names.push_back(absl::StrCat("--", name));
  return names;
}

bool TakesValue(const CLI::Option& option) { return option.get_items_expected_max() > 0; }

void AddOptions(const CommandTree& tree, const CLI::App& app, Node* node) {
  for (const CLI::Option* option : app.get_options()) {
    const auto hint = tree.hints().find(option);
    const std::vector<std::string> names = Names(*option);
    // A command's own option hides the global one of that name.
    if (!names.empty() && std::find(node->options.begin(), node->options.end(), names.back()) !=
                              node->options.end()) {
      continue;
    }
    node->options.insert(node->options.end(), names.begin(), names.end());
    if (!names.empty() && TakesValue(*option))
      node->takes.insert(node->takes.end(), names.begin(), names.end());
    if (hint != tree.hints().end())
      node->values.push_back({absl::StrJoin(names, "|"), &hint->second});
  }
}

void Collect(const CommandTree& tree, const CLI::App& app, const std::string& path,
             std::vector<Node>* nodes) {
  Node node;
  node.path = path;
  node.description = app.get_description();
  const auto subs = app.get_subcommands([](const CLI::App*) { return true; });
  for (const CLI::App* sub : subs) node.subcommands.push_back(sub->get_name());
  for (const CLI::Option* option : app.get_options()) node.own.push_back(option);
  for (const CLI::App* at = &app; at != nullptr; at = at->get_parent())
    AddOptions(tree, *at, &node);
  nodes->push_back(std::move(node));
  for (const CLI::App* sub : subs) {
    Collect(tree, *sub, absl::StrCat(path, path.empty() ? "" : " ", sub->get_name()), nodes);
  }
}

std::string HintBody(const ValueHint& hint) {
  return hint.file ? std::string("file=1")
                   : absl::StrCat("values='", absl::StrJoin(hint.words, " "), "'");
}

// The function that sets subs, opts and takes for a path, and values or file for (path, option):
// alike in bash and zsh.
std::string Tables(const std::vector<Node>& nodes) {
  std::string out = "__fluxctl_at() {\n  subs= opts= takes=\n  case \"$1\" in\n";
  for (const Node& node : nodes) {
    absl::StrAppend(&out, "    '", node.path, "')\n      subs='",
                    absl::StrJoin(node.subcommands, " "), "'\n      opts='",
                    absl::StrJoin(node.options, " "), "'\n      takes='",
                    absl::StrJoin(node.takes, " "), "' ;;\n");
  }
  absl::StrAppend(&out, "  esac\n}\n__fluxctl_values() {\n  values= file=\n  case \"$1:$2\" in\n");
  for (const Node& node : nodes) {
    for (const Node::Value& value : node.values) {
      std::string patterns;
      if (value.names.empty()) {
        patterns = absl::StrCat("'", node.path, ":'");
      } else {
        patterns = absl::StrCat(
            "'", node.path, ":",
            absl::StrReplaceAll(value.names, {{"|", absl::StrCat("'|'", node.path, ":")}}), "'");
      }
      absl::StrAppend(&out, "    ", patterns, ") ", HintBody(*value.hint), " ;;\n");
    }
  }
  absl::StrAppend(&out, "  esac\n}\n");
  return out;
}

constexpr char kBash[] = R"(__fluxctl_complete() {
  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}
  local subs opts takes values file path= word i=1
  # Readline makes "=" a word of its own: --output=json is three.
  if [[ $cur == = ]]; then
    cur=
  elif [[ $prev == = ]]; then
    prev=${COMP_WORDS[COMP_CWORD-2]}
  fi
  __fluxctl_at ''
  while ((i < COMP_CWORD)); do
    word=${COMP_WORDS[i]}
    if [[ $word == -* ]]; then
      if [[ " $takes " == *" $word "* ]]; then
        ((i++))
        [[ ${COMP_WORDS[i]} == = ]] && ((i++))
      fi
    elif [[ " $subs " == *" $word "* ]]; then
      path="${path:+$path }$word"
      __fluxctl_at "$path"
    fi
    ((i++))
  done
  COMPREPLY=()
  if [[ $prev == -* && " $takes " == *" $prev "* ]]; then
    __fluxctl_values "$path" "$prev"
  elif [[ $cur == -* ]]; then
    values=$opts file=
  elif [[ -n $subs ]]; then
    values=$subs file=
  else
    __fluxctl_values "$path" ''
  fi
  if [[ -n $file ]]; then
    compopt -o filenames 2>/dev/null
    while IFS= read -r word; do COMPREPLY+=("$word"); done < <(compgen -f -- "$cur")
  elif [[ -n $values ]]; then
    while IFS= read -r word; do COMPREPLY+=("$word"); done < <(compgen -W "$values" -- "$cur")
  fi
}
complete -F __fluxctl_complete fluxctl
)";

constexpr char kZsh[] = R"(_fluxctl() {
  emulate -L zsh
  local cur=${words[CURRENT]} prev=${words[CURRENT-1]}
  local subs opts takes values file cmdpath= word
  local -i i=2
  __fluxctl_at ''
  while ((i < CURRENT)); do
    word=${words[i]}
    if [[ $word == -* ]]; then
      [[ " $takes " == *" $word "* ]] && ((i++))
    elif [[ " $subs " == *" $word "* ]]; then
      cmdpath="${cmdpath:+$cmdpath }$word"
      __fluxctl_at "$cmdpath"
    fi
    ((i++))
  done
  if [[ $cur == --*=* ]]; then
    prev=${cur%%=*}
    compset -P '*='
    __fluxctl_values "$cmdpath" "$prev"
  elif [[ $prev == -* && " $takes " == *" $prev "* ]]; then
    __fluxctl_values "$cmdpath" "$prev"
  elif [[ $cur == -* ]]; then
    values=$opts file=
  elif [[ -n $subs ]]; then
    values=$subs file=
  else
    __fluxctl_values "$cmdpath" ''
  fi
  if [[ -n $file ]]; then
    _files
  elif [[ -n $values ]]; then
    compadd -- ${=values}
  fi
}
if [[ ${funcstack[1]} == _fluxctl ]]; then
  _fluxctl "$@"
else
  compdef _fluxctl fluxctl
fi
)";

std::string FishQuote(const std::string& text) {
  return absl::StrCat("'", absl::StrReplaceAll(text, {{"\\", "\\\\"}, {"'", "\\'"}}), "'");
}

std::string Fish(const CommandTree& tree, const std::vector<Node>& nodes) {
  std::set<std::string> takes;
  std::string paths;
  for (const Node& node : nodes) {
    takes.insert(node.takes.begin(), node.takes.end());
    if (!node.path.empty()) absl::StrAppend(&paths, " ", FishQuote(node.path));
  }
  std::string out = absl::StrCat(
      "# fish completion of fluxctl\n"
      "function __fluxctl_at\n"
      "    set -l path\n"
      "    set -l skip 0\n"
      "    set -l tokens (commandline -opc)\n"
      "    for token in $tokens[2..-1]\n"
      "        if test $skip = 1\n"
      "            set skip 0\n"
      "        else if string match -q -- '-*' $token\n"
      "            contains -- $token ",
      absl::StrJoin(takes, " "),
      "; and set skip 1\n"
      "        else if contains -- (string trim -- \"$path $token\")",
      paths,
      "\n"
      "            set path $path $token\n"
      "        end\n"
      "    end\n"
      "    test \"$path\" = \"$argv[1]\"\n"
      "end\n"
      "complete -c fluxctl -f\n");
  for (const Node& node : nodes) {
    const std::string condition = absl::StrCat(
        "complete -c fluxctl -n ", FishQuote(absl::StrCat("__fluxctl_at \"", node.path, "\"")));
    for (const std::string& sub : node.subcommands) {
      const std::string path = node.path.empty() ? sub : absl::StrCat(node.path, " ", sub);
      const auto child =
          std::find_if(nodes.begin(), nodes.end(), [&](const Node& n) { return n.path == path; });
      absl::StrAppend(&out, condition, " -a ", sub, " -d ", FishQuote(child->description), "\n");
    }
    for (const CLI::Option* option : node.own) {
      const auto hint = tree.hints().find(option);
      const bool hinted = hint != tree.hints().end();
      std::string values;
      if (hinted && hint->second.file) values = " -F";
      if (hinted && !hint->second.file)
        values = absl::StrCat(" -a ", FishQuote(absl::StrJoin(hint->second.words, " ")));
      if (option->get_snames().empty() && option->get_lnames().empty()) {
        if (hinted) absl::StrAppend(&out, condition, values, "\n");
        continue;
      }
      // Global options are offered everywhere.
      absl::StrAppend(&out, node.path.empty() ? std::string("complete -c fluxctl") : condition);
      for (const std::string& name : option->get_snames()) absl::StrAppend(&out, " -s ", name);
      for (const std::string& name : option->get_lnames()) absl::StrAppend(&out, " -l ", name);
      if (TakesValue(*option))
        absl::StrAppend(&out, hinted && hint->second.file ? " -r" : " -x", values);
      absl::StrAppend(&out, " -d ", FishQuote(option->get_description()), "\n");
    }
  }
  return out;
}

}  // namespace

std::string CompletionScript(const CommandTree& tree, const std::string& shell) {
  std::vector<Node> nodes;
  Collect(tree, tree.app(), "", &nodes);
  if (shell == "fish") return Fish(tree, nodes);
  if (shell == "zsh") return absl::StrCat("#compdef fluxctl\n", Tables(nodes), kZsh);
  return absl::StrCat("# bash completion of fluxctl\n", Tables(nodes), kBash);
}

}  // namespace flux::ctl
