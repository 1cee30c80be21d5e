#include "client/fluxctl/app.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/fluxctl/text.h"
#include "client/fluxctl/view.h"
#include "proto/bridge.h"

#ifndef FLUX_VERSION
#error "the build defines FLUX_VERSION"
#endif

namespace flux::ctl {
namespace {

constexpr uint32_t kRateMax = 10'000;  // the server's

constexpr char kFooter[] =
    "Exit codes:\n"
    "  0    done; the workflow completed (run, result, watch)\n"
    "  1    the workflow failed, or was cancelled or terminated (run, result, watch)\n"
    "  2    the command line or the request is wrong\n"
    "  3    not found\n"
    "  4    conflict: the id is taken, or the state does not allow it\n"
    "  5    fluxd is unreachable, or the time is over\n"
    "  6    any other error\n"
    "  130  interrupted\n"
    "\n"
    "Data goes to stdout, everything else to stderr. -o json prints one document, -o jsonl one "
    "object a line.\n"
    "Times are those of the coordinator. Environment: FLUX_ADDRESS, FLUX_NAMESPACE, NO_COLOR.";

std::vector<std::string> StatusWords() {
  std::vector<std::string> words;
  const auto& descriptor = *v1::ExecutionStatus_descriptor();
  for (int i = 0; i < descriptor.value_count(); ++i) {
    if (descriptor.value(i)->number() != 0)
      words.push_back(EnumName(descriptor, descriptor.value(i)->number()));
  }
  return words;
}

// CLI11's own help, with our footer where it belongs and without its defaults for things that
// explain themselves.
std::shared_ptr<CLI::Formatter> MakeFormatter() {
  auto formatter = std::make_shared<CLI::Formatter>();
  formatter->column_width(34);
  return formatter;
}

std::string PathOf(const CLI::App& app) {
  std::string path = app.get_name();
  for (const CLI::App* parent = app.get_parent(); parent != nullptr;
       parent = parent->get_parent()) {
    path = absl::StrCat(parent->get_name(), " ", path);
  }
  return path;
}

std::string HelpOf(const CLI::App& app) {
  return app.get_parent() == nullptr ? app.help() : app.help(PathOf(*app.get_parent()));
}

// The command that was reached on the command line.
const CLI::App* Reached(const CLI::App& root) {
  const CLI::App* at = &root;
  while (true) {
    const auto chosen = at->get_subcommands();
    if (chosen.empty()) return at;
    at = chosen.front();
  }
}

std::vector<std::string> SubcommandNames(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* sub : app.get_subcommands([](const CLI::App*) { return true; }))
    names.push_back(sub->get_name());
  return names;
}

std::vector<std::string> OptionNames(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* at = &app; at != nullptr; at = at->get_parent()) {
    for (const CLI::Option* option : at->get_options()) {
      for (const std::string& name : option->get_lnames())
        names.push_back(absl::StrCat("--", name));
    }
  }
  return names;
}

void PrintError(Console& console, const absl::Status& status) {
  console.Note(absl::StrCat(ToAbsl(Message(status)), " (",
                            absl::AsciiStrToLower(absl::StatusCodeToString(status.code())), ")"));
  const std::string hint = HintOf(status);
  if (hint.empty()) return;
  // A hint that is indented is a quotation (of faulty input, with a caret) and stands as it is.
  console.Err(Escape(hint.front() == ' ' ? hint : absl::StrCat("  hint: ", hint), Lines::kMany));
  console.Err("\n");
}

}  // namespace

absl::StatusOr<std::string> CompleteAddress(const std::string& address) {
  for (const char* scheme : {"unix:", "unix-abstract:", "dns:", "ipv4:", "ipv6:"}) {
    if (absl::StartsWith(address, scheme)) return address;
  }
  if (address.find("://") != std::string::npos) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--address \"", address, "\" is a URL; give HOST:PORT, such as ", kDefaultAddress));
  }
  if (address.empty() || address.find_first_of(" \t\n/") != std::string::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat("--address \"", address, "\" is not HOST:PORT, such as ", kDefaultAddress));
  }
  const bool bracketed = address.front() == '[';
  const std::size_t colon = address.rfind(':');
  const bool has_port = colon != std::string::npos &&
                        (bracketed ? colon > address.find(']') : address.find(':') == colon);
  if (!has_port) {
    // Colons without brackets: a bare IPv6 address.
    if (!bracketed && colon != std::string::npos)
      return absl::StrCat("[", address, "]:", kDefaultPort);
    return absl::StrCat(address, ":", kDefaultPort);
  }
  const std::string port = address.substr(colon + 1);
  const bool digits =
      !port.empty() && port.size() <= 5 &&
      std::all_of(port.begin(), port.end(), [](unsigned char c) { return std::isdigit(c) != 0; });
  if (!digits || std::stoi(port) > 65535 || std::stoi(port) == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("--address \"", address, "\": \"", port, "\" is not a port (1 to 65535)"));
  }
  return address;
}

CommandTree::CommandTree()
    : app_("Flux, a durable workflow engine: start, watch and repair workflows.", "fluxctl") {
  app_.formatter(MakeFormatter());
  app_.fallthrough();  // global options may stand anywhere; commands made later inherit this
  app_.require_subcommand(0, 1);
  app_.set_help_flag("-h,--help", "Print this help");
  app_.footer(
      absl::StrCat("Example:\n  fluxctl workflow run hello --input '\"world\"'\n\n", kFooter));
  AddGlobal();
  AddWorkflow();
  AddEvents();
  AddBulks();
  AddSchedules();
  AddAdmin();

  auto shell = std::make_shared<std::string>();
  CLI::App* completion = Leaf(&app_, "completion", "Print the shell's completion script",
                              "  source <(fluxctl completion bash)\n"
                              "  fluxctl completion zsh > ~/.zfunc/_fluxctl\n"
                              "  fluxctl completion fish > ~/.config/fish/completions/fluxctl.fish",
                              [this, shell](Context& context) -> CommandResult {
                                context.console.Out(CompletionScript(*this, *shell));
                                return kExitOk;
                              });
  Words(completion->add_option("SHELL", *shell, "bash, zsh or fish")->required(),
        {"bash", "zsh", "fish"});
  CLI::App* version =
      Leaf(&app_, "version", "Print the version", "  fluxctl version\n  fluxctl version -o json",
           [this](Context& context) { return PrintVersion(context.console); });
  offline_ = {completion, version};
}

CLI::App* CommandTree::Group(CLI::App* parent, const std::string& name,
                             const std::string& description, const std::string& example) {
  CLI::App* group = parent->add_subcommand(name, description);
  group->footer(
      absl::StrCat("Example:\n  ", example, "\n\n'fluxctl ", name, " COMMAND --help' tells more."));
  group->require_subcommand(0, 1);
  return group;
}

CLI::App* CommandTree::Leaf(CLI::App* parent, const std::string& name,
                            const std::string& description, const std::string& examples,
                            Command command) {
  CLI::App* leaf = parent->add_subcommand(name, description);
  leaf->footer(absl::StrCat(
      "Example:\n", examples,
      "\n\nGlobal options (--address, --output, --timeout, ...): fluxctl --help\n\n", kFooter));
  commands_[leaf] = std::move(command);
  return leaf;
}

CLI::Option* CommandTree::Words(CLI::Option* option, std::vector<std::string> words) {
  option->check(
      [words](const std::string& value) {
        if (std::find(words.begin(), words.end(), value) != words.end()) return std::string();
        const std::string nearest = NearestWord(value, words);
        return absl::StrCat("\"", value, "\" is not one of ", absl::StrJoin(words, ", "),
                            nearest.empty() ? "" : absl::StrCat("; did you mean ", nearest, "?"));
      },
      "");
  hints_[option].words = std::move(words);
  return option;
}

CLI::Option* CommandTree::File(CLI::Option* option) {
  hints_[option].file = true;
  return option;
}

CLI::Option* CommandTree::Count(CLI::Option* option) {
  return option->check(
      [](const std::string& value) {
        constexpr std::size_t kDigitsMax = 18;  // keeps it inside 64 bits
        const bool digits = !value.empty() && std::all_of(value.begin(), value.end(), [](char c) {
          return c >= '0' && c <= '9';
        });
        if (digits && value.size() <= kDigitsMax) return std::string();
        return absl::StrCat("\"", value, "\" is not a number from 0 on",
                            digits ? absl::StrCat(" of at most ", kDigitsMax, " digits") : "");
      },
      "");
}

CLI::Option* CommandTree::MadeUpId(CLI::Option* option) {
  return option->check(
      [](const std::string& value) {
        return value.empty() ? "is empty; leave it out to have one made up" : std::string();
      },
      "");
}

void CommandTree::AddGlobal() {
  app_.add_option("-a,--address", global_.address,
                  absl::StrCat("Where fluxd listens (default ", kDefaultAddress, ")"))
      ->envname("FLUX_ADDRESS")
      ->type_name("HOST:PORT");
  app_.add_option("-n,--namespace", global_.name_space, "Namespace of the workflows")
      ->envname("FLUX_NAMESPACE")
      ->type_name("NAME");
  Words(app_.add_option("-o,--output", global_.output,
                        "table, json (one document) or jsonl (one object a line)")
            ->type_name("FORMAT"),
        {"table", "json", "jsonl"});
  app_.add_option("--timeout", global_.timeout,
                  "Give up after this long (default: 10s a call; none for run, watch and result)")
      ->type_name("DURATION");
  app_.add_flag("--no-color", global_.no_color, "No colour, also on a terminal");
  app_.add_flag("--ascii", global_.ascii, "Draw with ASCII characters only");
  app_.add_flag("-V,--version", global_.version, "Print the version");
}

void CommandTree::AddTarget(CLI::App* leaf, TargetOptions* target) {
  leaf->add_option("WORKFLOW_ID", target->workflow_id, "Which workflow")->required();
  leaf->add_option("--run-id", target->run_id, "Which of its runs (default: the newest)")
      ->type_name("ID");
}

void CommandTree::AddFilter(CLI::App* leaf, FilterOptions* filter) {
  leaf->add_option(
          "--query", filter->query,
          "Only those of which this holds: status = \"failed\" and label.tenant = \"acme\" "
          "and started > -2h; fields are workflow, version, status, workflow_id, run_id, "
          "started, closed, duration, failure_type, steps, parked and label.NAME")
      ->type_name("QUERY");
  leaf->add_option("--workflow", filter->workflow, "Only executions of this definition")
      ->type_name("NAME");
  Words(leaf->add_option("--status", filter->statuses, "Only those in this status; may be repeated")
            ->type_name("STATUS")
            ->delimiter(',')
            ->allow_extra_args(false),
        StatusWords());
  leaf->add_option("--id-prefix", filter->id_prefix, "Only workflow ids that begin so")
      ->type_name("TEXT");
  leaf->add_option("--started-after", filter->started_after,
                   "Only those started since: 2h ago (2h), a date (UTC) or an RFC 3339 time")
      ->type_name("WHEN");
  leaf->add_option("--started-before", filter->started_before,
                   "Only those started before that time")
      ->type_name("WHEN");
}

void CommandTree::AddBulk(CLI::App* leaf, BulkOptions* bulk) {
  leaf->add_option("WORKFLOW_ID", bulk->workflow_ids, "Which workflows; or give filters instead");
  leaf->add_option("--run-id", bulk->run_id, "Which run (with one workflow id)")->type_name("ID");
  AddByFilter(leaf, bulk);
}

void CommandTree::AddByFilter(CLI::App* leaf, BulkOptions* bulk) {
  AddFilter(leaf, &bulk->filter);
  leaf->add_flag("-y,--yes", bulk->yes, "Do not ask before acting on what the filters match");
  leaf->add_option("--rate", bulk->rate,
                   absl::StrCat("Act on so many a second of what they match, at most ", kRateMax,
                                " (default 500)"))
      ->type_name("N")
      ->check(CLI::Range(uint32_t{1}, kRateMax));
  leaf->add_flag("--detach", bulk->detach,
                 "Do not wait until all are dealt with: print the bulk operation's id and return");
}

absl::Status CommandTree::CheckIds(const BulkOptions& bulk) const {
  // CLI11 takes a word in brackets for a list; an id must never turn into another one.
  for (const std::string& id : bulk.workflow_ids) {
    if (std::find(arguments_.begin(), arguments_.end(), id) == arguments_.end()) {
      return absl::InvalidArgumentError(
          "a workflow id in square brackets must be selected with --id-prefix");
    }
  }
  return absl::OkStatus();
}

void CommandTree::AddStart(CLI::App* group, const std::string& name, bool run) {
  auto options = std::make_shared<StartOptions>();
  const std::string common = absl::StrCat(
      "  fluxctl workflow ", name, " code-chart --id chart-17 --input '\"chart-17.txt\"'\n",
      "  fluxctl workflow ", name, " add --args '[1, 2]' --label team=billing\n",
      "  jq .order order.json | fluxctl workflow ", name, " ship --input -");
  // The leaf is known only once it is made; inputs keep the order in which their two options were
  // mixed.
  auto leaf_slot = std::make_shared<CLI::App*>(nullptr);
  auto inputs = std::make_shared<std::array<CLI::Option*, 2>>();
  CLI::App* leaf = Leaf(
      group, name,
      run ? "Start a workflow, watch it, print its result" : "Start a workflow and return at once",
      common, [options, leaf_slot, inputs, run](Context& context) -> CommandResult {
        std::array<std::size_t, 2> taken{};
        for (const CLI::Option* option : (*leaf_slot)->parse_order()) {
          for (std::size_t i = 0; i < inputs->size(); ++i) {
            if (option != (*inputs)[i]) continue;
            options->inputs.push_back({.file = i == 1, .value = option->results()[taken[i]++]});
          }
        }
        return run ? RunWorkflow(context, *options) : StartWorkflow(context, *options);
      });
  *leaf_slot = leaf;
  leaf->add_option("NAME", options->workflow, "Name of the definition")->required();
  MadeUpId(
      leaf->add_option("--id", options->workflow_id, "Workflow id (default: the server makes one)")
          ->type_name("ID"));
  // Values are read from the option itself: CLI11's conversions would take [..] and {} for its own
  // lists.
  (*inputs)[0] =
      leaf->add_option("-i,--input",
                       "One parameter as JSON, or - to read it from stdin; repeat for more")
          ->type_name("JSON")
          ->take_all();
  (*inputs)[1] =
      File(leaf->add_option("-f,--input-file",
                            "One parameter as JSON from a file; mixes with --input in order")
               ->type_name("FILE")
               ->take_all());
  leaf->add_option("--args", options->args, "All parameters at once, as a JSON array")
      ->type_name("JSON");
  leaf->add_option("-l,--label", options->labels, "A label of the execution; may be repeated")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
  Words(leaf->add_option("--on-conflict", options->on_conflict,
                         "If the id is running: reject, use-existing or terminate-existing")
            ->type_name("POLICY"),
        {"reject", "use-existing", "terminate-existing"});
  Words(leaf->add_option("--reuse", options->reuse,
                         "If the id was used before: allow, allow-if-failed or reject")
            ->type_name("POLICY"),
        {"allow", "allow-if-failed", "reject"});
  MadeUpId(leaf->add_option("--request-id", options->request_id,
                            "Starts with equal request ids start once (default: random)")
               ->type_name("ID"));
  leaf->add_option("--version", options->version, "Version of the definition (default: the newest)")
      ->type_name("TEXT");
  leaf->add_option("--execution-timeout", options->execution_timeout,
                   "Fail the execution after this long")
      ->type_name("DURATION");
  if (run) leaf->add_flag("-q,--quiet", options->quiet, "No progress, only the result");
}

void CommandTree::AddStop(CLI::App* group, const std::string& name, bool terminate) {
  auto options = std::make_shared<StopOptions>();
  options->terminate = terminate;
  CLI::App* leaf = Leaf(
      group, name,
      terminate ? "End executions at once, without compensation"
                : "Ask executions to stop; running tasks are told",
      absl::StrCat("  fluxctl workflow ", name, " chart-17 --reason 'wrong input'\n",
                   "  fluxctl workflow ", name, " --workflow code-chart --started-after 2h -y\n",
                   "  fluxctl workflow ", name,
                   " --query 'label.tenant = \"acme\" and duration > 1d' --rate 50 --detach"),
      [this, options](Context& context) -> CommandResult {
        FLUX_RETURN_IF_ERROR(CheckIds(options->bulk));
        return StopWorkflows(context, *options);
      });
  AddBulk(leaf, &options->bulk);
  leaf->add_option("--reason", options->reason, "Why; kept in the history")->type_name("TEXT");
}

void CommandTree::AddWorkflow() {
  CLI::App* group = Group(&app_, "workflow", "Start, watch, read and stop workflows",
                          "fluxctl workflow show chart-17");
  AddStart(group, "start", /*run=*/false);
  AddStart(group, "run", /*run=*/true);

  auto list = std::make_shared<ListOptions>();
  CLI::App* leaf =
      Leaf(group, "list", "List executions, newest first",
           "  fluxctl workflow list --status running --started-after 2h\n"
           "  fluxctl workflow list --query 'status = \"failed\" and label.tenant = "
           "\"acme\" and started > -2h'\n"
           "  fluxctl workflow list --query 'workflow_id ^= \"chart-\" and not (status "
           "in (\"running\", \"paused\"))'\n"
           "  fluxctl workflow list --limit 0 -o jsonl | jq -r .workflow_id",
           [list](Context& context) { return ListWorkflows(context, *list); });
  AddFilter(leaf, &list->filter);
  Count(leaf->add_option("--limit", list->limit, "At most so many; 0 for all (default 100)")
            ->type_name("N"));

  auto count = std::make_shared<FilterOptions>();
  leaf = Leaf(group, "count", "Count executions by status",
              "  fluxctl workflow count --workflow code-chart\n"
              "  fluxctl workflow count --query 'closed > -1d and failure_type = \"bad-page\"'",
              [count](Context& context) { return CountWorkflows(context, *count); });
  AddFilter(leaf, count.get());

  auto show = std::make_shared<ShowOptions>();
  leaf = Leaf(group, "show",
              "Show an execution and the tree of its steps, and why each unfinished one waits",
              "  fluxctl workflow show chart-17 --items 50",
              [show](Context& context) { return ShowWorkflow(context, *show); });
  AddTarget(leaf, &show->target);
  leaf->add_option("--items", show->items, "How many items of each map (default 10)")
      ->type_name("N")
      ->check(CLI::Range(1, 10000));
  leaf->add_flag("--payloads", show->payloads, "Also inputs, outputs and progress");

  auto history = std::make_shared<HistoryCommandOptions>();
  leaf = Leaf(group, "history", "Everything that happened to an execution, in order",
              "  fluxctl workflow history chart-17 --absolute",
              [history](Context& context) { return ShowHistory(context, *history); });
  AddTarget(leaf, &history->target);
  leaf->add_flag("--absolute", history->absolute, "Times of day instead of times since the start");
  leaf->add_flag("--payloads", history->payloads, "Also the payloads");
  Count(leaf->add_option("--limit", history->limit, "Only the first so many events (default: all)")
            ->type_name("N"));

  auto result = std::make_shared<ResultOptions>();
  leaf = Leaf(group, "result", "Print an execution's result; waits for it",
              "  fluxctl workflow result chart-17 --timeout 5m > report.json",
              [result](Context& context) { return ShowResult(context, *result); });
  AddTarget(leaf, &result->target);
  leaf->add_flag("--no-wait", result->no_wait, "Do not wait: exit with 4 if there is none yet");

  auto watch = std::make_shared<TargetOptions>();
  leaf = Leaf(group, "watch",
              "Follow an execution until it closes; payloads are left to 'show' and 'result'",
              "  fluxctl workflow watch chart-17",
              [watch](Context& context) { return WatchWorkflow(context, *watch); });
  AddTarget(leaf, watch.get());

  AddStop(group, "cancel", /*terminate=*/false);
  AddStop(group, "terminate", /*terminate=*/true);
  AddRepair(group);
}

void CommandTree::AddAdmin() {
  CLI::App* group = Group(&app_, "worker", "The workers that are connected", "fluxctl worker list");
  auto queue = std::make_shared<std::string>();
  CLI::App* leaf = Leaf(group, "list", "List workers", "  fluxctl worker list --queue nlp",
                        [queue](Context& context) { return ListWorkers(context, *queue); });
  leaf->add_option("--queue", *queue, "Only those of this task queue")->type_name("NAME");

  group = Group(&app_, "task-queue", "Where tasks wait for workers", "fluxctl task-queue list");
  Leaf(group, "list", "List task queues", "  fluxctl task-queue list",
       [](Context& context) { return ListQueues(context); });
  auto name = std::make_shared<std::string>();
  leaf = Leaf(group, "show", "Show a task queue: its tasks, and who can run them",
              "  fluxctl task-queue show default",
              [name](Context& context) { return ShowQueue(context, *name); });
  leaf->add_option("NAME", *name, "Name of the queue")->required();

  group =
      Group(&app_, "definition", "The workflows that the server knows", "fluxctl definition list");
  auto list = std::make_shared<DefinitionOptions>();
  leaf = Leaf(group, "list", "List definitions", "  fluxctl definition list --name code-chart",
              [list](Context& context) { return ListDefinitions(context, *list); });
  leaf->add_option("--name", list->name, "Only versions of this one")->type_name("NAME");
  Count(leaf->add_option("--limit", list->limit, "At most so many (default: all)")->type_name("N"));
  auto show = std::make_shared<DefinitionOptions>();
  leaf = Leaf(group, "show", "Show a definition's steps",
              "  fluxctl definition show code-chart --version 2",
              [show](Context& context) { return ShowDefinition(context, *show); });
  leaf->add_option("NAME", show->name, "Name of the definition")->required();
  leaf->add_option("--version", show->version, "Which version (default: the newest)")
      ->type_name("TEXT");
  leaf->add_option("--hash", show->hash, "Exactly this one; the hash's beginning will do")
      ->type_name("HEX");
  auto diff = std::make_shared<DiffOptions>();
  leaf = Leaf(group, "diff",
              "Compare two definitions: which steps were added, removed and changed, and how",
              "  fluxctl definition diff code-chart@1 code-chart@2\n"
              "  fluxctl definition diff code-chart@1 @2 -o json\n"
              "  fluxctl definition diff 6cd8f12a 09be44d1",
              [diff](Context& context) { return DiffDefinitions(context, *diff); });
  leaf->add_option("A", diff->from, "NAME, NAME@VERSION, or a hash (its beginning will do)")
      ->required();
  leaf->add_option("B", diff->to, "The same; @VERSION is of A's name")->required();
  auto path = std::make_shared<std::string>();
  leaf = Leaf(group, "put",
              "Store a definition from its JSON form, as 'definition show -o json' prints it",
              "  fluxctl definition put code-chart.json\n"
              "  fluxctl -a old:4510 definition show code-chart -o json | fluxctl -a new:4510 "
              "definition put -",
              [path](Context& context) { return PutDefinition(context, *path); });
  File(leaf->add_option("FILE", *path, "JSON file, or - for stdin")->required());

  group = Group(&app_, "admin", "The coordinator itself", "fluxctl admin info");
  Leaf(group, "info", "Show what the coordinator is doing", "  fluxctl admin info -o json",
       [](Context& context) { return ShowServer(context); });
  auto target = std::make_shared<TargetOptions>();
  leaf =
      Leaf(group, "verify", "Rebuild an execution from disk and compare it with the one in memory",
           "  fluxctl admin verify chart-17",
           [target](Context& context) { return VerifyWorkflow(context, *target); });
  AddTarget(leaf, target.get());
}

absl::Status CommandTree::CheckLeftovers(const CLI::App& at) const {
  // Extras fall through to the root, whose list begins with what the user meant as a command.
  const std::vector<std::string> extras = app_.remaining();
  if (extras.empty()) return absl::OkStatus();
  const std::string& word = extras.front();
  const bool option = word.size() > 1 && word.front() == '-';
  const std::vector<std::string> known = option ? OptionNames(at) : SubcommandNames(at);
  const std::string nearest = NearestWord(word, known);
  const std::string what = option          ? "unknown option"
                           : known.empty() ? "unexpected argument"
                                           : "unknown command";
  return WithHint(absl::InvalidArgumentError(absl::StrCat(
                      what, " \"", word, "\" for '", PathOf(at), "'",
                      nearest.empty() ? "" : absl::StrCat("; did you mean \"", nearest, "\"?"))),
                  absl::StrCat("'", PathOf(at), " --help' lists what there is"));
}

absl::Status CommandTree::Parse(int argc, const char* const* argv) {
  arguments_.assign(argv + std::min(argc, 1), argv + argc);
  for (const std::string& argument : arguments_) {
    if (argument == "--") break;
    // CLI11 would take the next argument for the value.
    if (argument.size() > 3 && absl::StartsWith(argument, "--") &&
        argument.find('=') == argument.size() - 1) {
      return absl::InvalidArgumentError(
          absl::StrCat("option \"", argument, "\" has an empty value"));
    }
  }
  // Extras are allowed so that we name them ourselves, with the nearest command or option that
  // exists.
  std::vector<CLI::App*> all = {&app_};
  for (std::size_t i = 0; i < all.size(); ++i) {
    all[i]->allow_extras();
    for (CLI::App* sub : all[i]->get_subcommands([](CLI::App*) { return true; }))
      all.push_back(sub);
  }
  std::vector<std::string> reversed(arguments_.rbegin(), arguments_.rend());
  app_.parse(reversed);
  FLUX_RETURN_IF_ERROR(CheckLeftovers(*Reached(app_)));
  return CheckUtf8();
}

absl::Status CommandTree::CheckUtf8() const {
  for (const CLI::App* at = Reached(app_); at != nullptr; at = at->get_parent()) {
    for (const CLI::Option* option : at->get_options()) {
      const auto hint = hints_.find(option);
      if (hint != hints_.end() && hint->second.file) continue;
      const std::vector<std::string>& values = option->results();
      if (std::all_of(values.begin(), values.end(),
                      [](const std::string& value) { return IsUtf8(value); })) {
        continue;
      }
      return absl::InvalidArgumentError(absl::StrCat(option->get_name(), " is not UTF-8"));
    }
  }
  return absl::OkStatus();
}

CommandResult CommandTree::PrintVersion(Console& console) const {
  if (global_.output == "table") {
    console.Out(absl::StrCat("fluxctl ", FLUX_VERSION, "\n"));
  } else {
    console.Out(absl::StrCat(
        Dump(Json{{"version", FLUX_VERSION}}, global_.output == "json" ? 2 : -1), "\n"));
  }
  return kExitOk;
}

CommandResult CommandTree::Execute(Console& console) {
  if (global_.version) return PrintVersion(console);
  const CLI::App* reached = Reached(app_);
  const auto command = commands_.find(reached);
  if (command == commands_.end()) {
    // A group alone: what can follow is the answer.
    console.Out(HelpOf(*reached));
    return kExitOk;
  }
  FLUX_ASSIGN_OR_RETURN(const std::string address, CompleteAddress(global_.address));
  std::optional<absl::Duration> timeout;
  if (!global_.timeout.empty()) {
    FLUX_ASSIGN_OR_RETURN(timeout, ForOption("--timeout", ParseDuration(global_.timeout)));
    if (*timeout < absl::Milliseconds(1)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "--timeout: ", global_.timeout, " leaves no time for an answer; give 1ms or more"));
    }
  }
  // Connects on first use, so commands that need no server never look for one.
  Connection connection(address, timeout);
  Context context{.console = console,
                  .connection = connection,
                  .name_space = global_.name_space,
                  .output = global_.output == "json"    ? Output::kJson
                            : global_.output == "jsonl" ? Output::kJsonLines
                                                        : Output::kTable};
  return command->second(context);
}

int CommandTree::Run(int argc, const char* const* argv) {
  absl::Status parsed;
  std::string help;
  bool wants_help = false;
  try {
    parsed = Parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    wants_help = true;
  } catch (const CLI::CallForAllHelp&) {
    wants_help = true;
  } catch (const CLI::ParseError& error) {
    // An unknown word often is why something required is missing, so it is named first.
    parsed = CheckLeftovers(*Reached(app_));
    if (parsed.ok()) {
      parsed = WithHint(absl::InvalidArgumentError(error.what()),
                        absl::StrCat("see '", PathOf(*Reached(app_)), " --help'"));
    }
  }
  Console console({.no_color = global_.no_color, .ascii = global_.ascii});
  ExitCode code = kExitOk;
  if (wants_help) {
    console.Out(HelpOf(*Reached(app_)));
  } else if (!parsed.ok()) {
    PrintError(console, parsed);
    code = kExitUsage;
  } else {
    CommandResult result = Execute(console);
    if (result.ok()) {
      code = *result;
    } else {
      code = ExitCodeOf(result.status());
      if (!absl::IsCancelled(result.status())) PrintError(console, result.status());
    }
  }
  if (absl::Status finished = console.Finish(); !finished.ok() && code == kExitOk) {
    PrintError(console, finished);
    code = kExitOther;
  }
  return code;
}

}  // namespace flux::ctl
