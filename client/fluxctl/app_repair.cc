// The commands of an operator at work, and those for events: their part of the tree.
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/fluxctl/app.h"
#include "proto/bridge.h"

namespace flux::ctl {
namespace {

constexpr char kReason[] = "Why; kept in the history";

// A payload: on the command line, or from a file.
struct ValueOptions {
  std::string text;
  std::string file;
};

absl::StatusOr<InputArgument> ToInput(const ValueOptions& value) {
  if (value.text.empty() == value.file.empty()) {
    return absl::InvalidArgumentError("give the value with --input JSON or with --input-file FILE");
  }
  return InputArgument{.file = !value.file.empty(),
                       .value = value.file.empty() ? value.text : value.file};
}

// What the command acts on within an execution, as the usage calls it.
const char* NamedBy(RepairKind kind) {
  switch (kind) {
    case RepairKind::kCancelEvent:
      return "EVENT_ID";
    case RepairKind::kEditEvent:
    case RepairKind::kReplayEvent:
      return "EVENT";
    default:
      return "STEP";
  }
}

// With filters the only argument is the step, or the event.
absl::Status TakeNameAlone(TargetOptions* target, RepairOptions* options) {
  const char* const name = NamedBy(options->kind);
  if (!options->name.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "give a workflow id or filters, not both; with filters, ", name, " is the only argument"));
  }
  if (target->workflow_id.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(name, " is required"));
  }
  options->name = std::exchange(target->workflow_id, "");
  return absl::OkStatus();
}

absl::Status CheckBoth(const TargetOptions& target, const RepairOptions& options) {
  const char* const name = NamedBy(options.kind);
  if (target.workflow_id.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("WORKFLOW_ID and ", name,
                                                   " are required; or a filter, such as --query, "
                                                   "and ",
                                                   name));
  }
  if (options.name.empty()) return absl::InvalidArgumentError(absl::StrCat(name, " is required"));
  return absl::OkStatus();
}

bool TakesValue(RepairKind kind) {
  return kind == RepairKind::kSetResult || kind == RepairKind::kEditEvent ||
         kind == RepairKind::kReplayEvent;
}

}  // namespace

CLI::App* CommandTree::AddRepairOne(CLI::App* group, const std::string& name,
                                    const std::string& description, const std::string& examples,
                                    RepairKind kind) {
  auto options = std::make_shared<RepairOptions>();
  auto target = std::make_shared<TargetOptions>();
  auto value = std::make_shared<ValueOptions>();
  options->kind = kind;
  CLI::App* leaf = Leaf(group, name, description, examples,
                        [options, target, value](Context& context) -> CommandResult {
                          if (!options->bulk.filter.empty()) {
                            FLUX_RETURN_IF_ERROR(TakeNameAlone(target.get(), options.get()));
                          } else {
                            FLUX_RETURN_IF_ERROR(CheckBoth(*target, *options));
                            options->bulk.workflow_ids = {target->workflow_id};
                          }
                          options->bulk.run_id = target->run_id;
                          if (TakesValue(options->kind)) {
                            FLUX_ASSIGN_OR_RETURN(options->value, ToInput(*value));
                          }
                          return RepairWorkflows(context, *options);
                        });
  const std::string name_of = NamedBy(kind);
  const bool step = name_of == "STEP";
  leaf->add_option(
      "WORKFLOW_ID", target->workflow_id,
      absl::StrCat("Which workflow; or give filters, and the ", step ? "step" : "event", " alone"));
  leaf->add_option(name_of, options->name,
                   step ? "The step's path, as 'workflow show' prints it: merge, codes[17].parse"
                   : kind == RepairKind::kCancelEvent ? "Its id, as 'event list' prints it"
                                                      : "The event's name");
  leaf->add_option("--run-id", target->run_id, "Which of its runs (default: the newest)")
      ->type_name("ID");
  AddByFilter(leaf, &options->bulk);
  if (kind == RepairKind::kEditEvent) {
    Count(leaf->add_option(
                  "--number", options->number,
                  "Which one of that name, as 'event list' numbers them (default: the newest)")
              ->type_name("N"));
  }
  if (TakesValue(kind)) {
    leaf->add_option("-i,--input", value->text, "The value as JSON, or - to read it from stdin")
        ->type_name("JSON");
    File(leaf->add_option("-f,--input-file", value->file, "The value as JSON from a file")
             ->type_name("FILE"));
  }
  leaf->add_option("--reason", options->reason, kReason)->type_name("TEXT");
  return leaf;
}

void CommandTree::AddRepair(CLI::App* group) {
  const auto many = [this, group](const std::string& name, const std::string& description,
                                  const std::string& examples, RepairKind kind) {
    auto options = std::make_shared<RepairOptions>();
    options->kind = kind;
    CLI::App* leaf = Leaf(group, name, description, examples,
                          [this, options](Context& context) -> CommandResult {
                            FLUX_RETURN_IF_ERROR(CheckIds(options->bulk));
                            return RepairWorkflows(context, *options);
                          });
    AddBulk(leaf, &options->bulk);
    if (kind == RepairKind::kRetry) {
      leaf->add_option(
              "--step", options->name,
              "Only this step, by its path, also one that runs or waits (default: every failed "
              "and parked one)")
          ->type_name("PATH");
    }
    if (kind == RepairKind::kMigrate) {
      leaf->add_option(
              "--to", options->name,
              "NAME@VERSION, @VERSION (with --workflow), or a hash (its beginning will do)")
          ->type_name("DEFINITION")
          ->required();
      leaf->add_flag("--dry-run", options->dry_run,
                     "Only say of each whether it can go on there, and why not");
    }
    leaf->add_option("--reason", options->reason, kReason)->type_name("TEXT");
  };
  many("pause", "Hand out nothing more of executions; what runs goes on",
       "  fluxctl workflow pause chart-17 --reason 'the printer is on fire'\n"
       "  fluxctl workflow pause --query 'label.tenant = \"acme\"' -y",
       RepairKind::kPause);
  many("resume", "Go on with paused executions",
       "  fluxctl workflow resume chart-17\n"
       "  fluxctl workflow resume --workflow code-chart -y",
       RepairKind::kResume);
  many(
      "retry", "Try failed and parked steps again, re-opening failed executions",
      "  fluxctl workflow retry chart-17 --reason 'the service is back'\n"
      "  fluxctl workflow retry chart-17 --step 'codes[17].parse'\n"
      "  fluxctl workflow retry --query 'failure_type = \"flux.timeout.start_to_close\" and closed "
      "> -1d' --rate 20",
      RepairKind::kRetry);
  many("migrate", "Let running executions go on with another version of their workflow",
       "  fluxctl workflow migrate chart-17 --to code-chart@3 --dry-run\n"
       "  fluxctl workflow migrate --workflow code-chart --to @3 --reason 'the fix of page 7'",
       RepairKind::kMigrate);
  many("delete", "Delete closed executions with all that is kept of them",
       "  fluxctl workflow delete chart-17\n"
       "  fluxctl workflow delete --query 'closed < -30d and label.tenant = \"acme\"' --reason "
       "'their contract ended'",
       RepairKind::kDelete);
  auto deletions = std::make_shared<DeletionsOptions>();
  CLI::App* deleted =
      Leaf(group, "deletions", "List who had which executions deleted in the last 90 days, and why",
           "  fluxctl workflow deletions\n"
           "  fluxctl workflow deletions chart-17 -o json",
           [deletions](Context& context) { return ListDeletions(context, *deletions); });
  deleted->add_option("WORKFLOW_ID", deletions->workflow_id, "Only those of this id");
  Count(deleted->add_option("--limit", deletions->limit, "At most so many; 0 for all (default 100)")
            ->type_name("N"));
  AddRepairOne(group, "park", "Set a step aside for an operator; the rest goes on",
               "  fluxctl workflow park chart-17 merge --reason 'wrong template'",
               RepairKind::kPark);
  AddRepairOne(group, "unpark", "Let a parked step run again; one that is not parked is left alone",
               "  fluxctl workflow unpark chart-17 merge --reason 'the template is right now'\n"
               "  fluxctl workflow unpark --query 'label.tenant = \"acme\"' merge",
               RepairKind::kUnpark);
  AddRepairOne(group, "skip", "Settle a step as skipped",
               "  fluxctl workflow skip chart-17 'codes[17].parse' --reason 'page is blank'\n"
               "  fluxctl workflow skip --query 'label.tenant = \"acme\"' notify",
               RepairKind::kSkip);
  AddRepairOne(group, "set-result", "Settle a step with a value of your own",
               "  fluxctl workflow set-result chart-17 merge --input '{\"pages\": 3}'\n"
               "  fluxctl workflow set-result chart-17 merge -f report.json --reason 'by hand'",
               RepairKind::kSetResult);
  AddRepairOne(
      group, "rewind", "Run a step again, and all that is downstream of it; other branches stay",
      "  fluxctl workflow rewind chart-17 merge --reason 'the template was wrong'\n"
      "  fluxctl workflow rewind --query 'workflow = \"code-chart\" and closed > -3h' merge",
      RepairKind::kRewind);

  auto signal = std::make_shared<SignalOptions>();
  auto value = std::make_shared<ValueOptions>();
  CLI::App* leaf =
      Leaf(group, "signal", "Send an event to an execution",
           "  fluxctl workflow signal chart-17 approved --input true\n"
           "  fluxctl workflow signal chart-17 approved --input true --in 2h --event-id mail-3",
           [signal, value](Context& context) -> CommandResult {
             if (value->text.empty() && value->file.empty()) value->text = "null";
             FLUX_ASSIGN_OR_RETURN(signal->payload, ToInput(*value));
             return SignalWorkflow(context, *signal);
           });
  AddTarget(leaf, &signal->target);
  leaf->add_option("EVENT", signal->event, "The event's name")->required();
  leaf->add_option("-i,--input", value->text,
                   "Its payload as JSON, or - to read it from stdin (default: null)")
      ->type_name("JSON");
  File(leaf->add_option("-f,--input-file", value->file, "Its payload as JSON from a file")
           ->type_name("FILE"));
  MadeUpId(leaf->add_option("--event-id", signal->event_id,
                            "Events with equal ids are accepted once (default: random)")
               ->type_name("ID"));
  leaf->add_option("--at", signal->deliver_at,
                   "Deliver it then: a date (midnight UTC) or an RFC 3339 time")
      ->type_name("WHEN");
  leaf->add_option("--in", signal->deliver_in, "Deliver it after this long")->type_name("DURATION");
}

void CommandTree::AddEvents() {
  CLI::App* group =
      Group(&app_, "event", "The events of an execution", "fluxctl event list chart-17");
  auto list = std::make_shared<EventsOptions>();
  CLI::App* leaf = Leaf(group, "list", "List the events of an execution, delayed ones included",
                        "  fluxctl event list chart-17 --payloads",
                        [list](Context& context) { return ListEvents(context, *list); });
  AddTarget(leaf, &list->target);
  leaf->add_flag("--payloads", list->payloads, "Also the payloads");
  AddRepairOne(group, "cancel", "Do not deliver a delayed event",
               "  fluxctl event cancel chart-17 mail-3 --reason 'sent by mistake'\n"
               "  fluxctl event cancel --query 'label.tenant = \"acme\"' reminder",
               RepairKind::kCancelEvent);
  AddRepairOne(group, "edit", "Change an event's payload before its readers run",
               "  fluxctl event edit chart-17 approved --input false --reason 'misread'\n"
               "  fluxctl event edit --query 'label.tenant = \"acme\"' approved --input false",
               RepairKind::kEditEvent);
  AddRepairOne(group, "replay",
               "Run an event's readers again with new data, and all that is downstream of them",
               "  fluxctl event replay chart-17 approved --input true --reason 'second look'\n"
               "  fluxctl event replay --workflow code-chart approved --input true --rate 20",
               RepairKind::kReplayEvent);
}

}  // namespace flux::ctl
