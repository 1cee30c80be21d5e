// The command line of `fluxctl schedule`.
#include <array>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/fluxctl/app.h"
#include "client/fluxctl/schedule_commands.h"

namespace flux::ctl {
namespace {

constexpr char kCronHelp[] =
    "When, as five fields: minute hour day month weekday, or @hourly, @daily, ...; may be repeated";

std::vector<std::string> OverlapWords() {
  return {"skip", "buffer-one", "buffer-all", "cancel-other", "terminate-other", "allow-all"};
}

}  // namespace

void CommandTree::AddScheduleEdit(CLI::App* group, bool create) {
  auto options = std::make_shared<ScheduleOptions>();
  auto leaf_slot = std::make_shared<CLI::App*>(nullptr);
  auto inputs = std::make_shared<std::array<CLI::Option*, 2>>();
  const std::string create_examples =
      "  fluxctl schedule create nightly --workflow report --cron '30 2 * * *' "
      "--time-zone Europe/Berlin\n"
      "  fluxctl schedule create poll --workflow sync --every 5m --jitter 30s --overlap "
      "buffer-one --input '\"eu\"'\n"
      "  fluxctl schedule create launch --workflow campaign --cron '0 9 * * MON-FRI' --start-at "
      "2025-06-01 --max-actions 10 --paused";
  const std::string update_examples =
      "  fluxctl schedule update nightly --cron '0 3 * * *' --time-zone UTC\n"
      "  fluxctl schedule update poll --overlap skip --no-pause-on-failure";
  CLI::App* leaf =
      Leaf(group, create ? "create" : "update",
           create ? "Start a workflow again and again: at times of the clock, or every so often"
                  : "Change a schedule; what is not given stays, new times replace the old ones",
           create ? create_examples : update_examples,
           [options, leaf_slot, inputs, create](Context& context) -> CommandResult {
             // Inputs keep the order in which their two options were mixed.
             std::array<std::size_t, 2> taken{};
             for (const CLI::Option* option : (*leaf_slot)->parse_order()) {
               for (std::size_t i = 0; i < inputs->size(); ++i) {
                 if (option != (*inputs)[i]) continue;
                 options->start.inputs.push_back(
                     {.file = i == 1, .value = option->results()[taken[i]++]});
               }
             }
             return create ? CreateSchedule(context, *options) : UpdateSchedule(context, *options);
           });
  *leaf_slot = leaf;
  leaf->add_option("SCHEDULE_ID", options->id, "Name of the schedule")->required();
  CLI::Option* workflow =
      leaf->add_option("--workflow", options->start.workflow, "Definition to start")
          ->type_name("NAME");
  if (create) workflow->required();
  leaf->add_option("--cron", options->crons, kCronHelp)
      ->type_name("EXPRESSION")
      ->allow_extra_args(false);
  leaf->add_option("--every", options->every,
                   "When, as an interval counted from 1970: 90s, 6h, 6h+30m; may be repeated")
      ->type_name("DURATION[+OFFSET]")
      ->allow_extra_args(false);
  leaf->add_option("--time-zone", options->time_zone,
                   "Zone of the cron expressions, such as Europe/Berlin (default: UTC)")
      ->type_name("ZONE");
  leaf->add_option("--start-at", options->start_at,
                   "Not before this time: a date (midnight UTC), an RFC 3339 time, or none for no "
                   "bound")
      ->type_name("WHEN");
  leaf->add_option("--end-at", options->end_at, "Not after this time; the same")->type_name("WHEN");
  leaf->add_option("--jitter", options->jitter,
                   "Delay each start by a part of this, so that many do not start at once")
      ->type_name("DURATION");
  Words(leaf->add_option("--overlap", options->overlap,
                         "If the last run is still open: skip (default), buffer-one, buffer-all, "
                         "cancel-other, terminate-other or allow-all")
            ->type_name("POLICY"),
        OverlapWords());
  leaf->add_option("--catchup-window", options->catchup_window,
                   "How late a time may be started after downtime (default: a year)")
      ->type_name("DURATION");
  leaf->add_flag("--pause-on-failure,!--no-pause-on-failure", options->pause_on_failure,
                 "Pause the schedule when a run of it fails");
  Count(leaf->add_option("--max-actions", options->max_actions,
                         "Start so many and then no more; 0 for no limit")
            ->type_name("N"));
  leaf->add_option("--id-prefix", options->start.workflow_id,
                   "Workflow ids are this, \"-\" and the time (default: the schedule's id)")
      ->type_name("TEXT");
  // Values are read from the option itself, as those of `workflow start` are.
  (*inputs)[0] = leaf->add_option("-i,--input",
                                  "One parameter as JSON, or - to read it from stdin; repeat for "
                                  "more")
                     ->type_name("JSON")
                     ->take_all();
  (*inputs)[1] =
      File(leaf->add_option("-f,--input-file",
                            "One parameter as JSON from a file; mixes with --input in order")
               ->type_name("FILE")
               ->take_all());
  leaf->add_option("--args", options->start.args, "All parameters at once, as a JSON array")
      ->type_name("JSON");
  leaf->add_option("-l,--label", options->start.labels,
                   "A label of the executions; may be repeated")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
  leaf->add_option("--version", options->start.version,
                   "Version of the definition (default: the newest at each start)")
      ->type_name("TEXT");
  leaf->add_option("--execution-timeout", options->start.execution_timeout,
                   "Fail an execution after this long")
      ->type_name("DURATION");
  if (!create) return;
  leaf->add_flag("--paused", options->paused, "Create it paused");
  leaf->add_option("--note", options->note, "Why; shown with its state")->type_name("TEXT");
}

void CommandTree::AddSchedulePause(CLI::App* group, bool pause) {
  auto options = std::make_shared<SchedulePauseOptions>();
  CLI::App* leaf =
      Leaf(group, pause ? "pause" : "resume",
           pause ? "Start nothing until it is resumed; times that pass are not made up for"
                 : "Go on from now",
           pause ? "  fluxctl schedule pause nightly --note 'the printer is being moved'"
                 : "  fluxctl schedule resume nightly --note 'the printer is back'",
           [options, pause](Context& context) {
             return pause ? PauseSchedule(context, *options) : ResumeSchedule(context, *options);
           });
  leaf->add_option("SCHEDULE_ID", options->id, "Which schedule")->required();
  leaf->add_option("--note", options->note, "Why; shown with its state")->type_name("TEXT");
}

void CommandTree::AddSchedules() {
  CLI::App* group =
      Group(&app_, "schedule", "Workflows that are started by the clock", "fluxctl schedule list");
  AddScheduleEdit(group, /*create=*/true);

  auto list = std::make_shared<ScheduleListOptions>();
  CLI::App* leaf = Leaf(group, "list", "List schedules, when they start next and how the last went",
                        "  fluxctl schedule list\n"
                        "  fluxctl schedule list --limit 0 -o jsonl | jq 'select(.paused)'",
                        [list](Context& context) { return ListSchedules(context, *list); });
  leaf->add_option("--id-prefix", list->id_prefix, "Only ids that begin so")->type_name("TEXT");
  Count(leaf->add_option("--limit", list->limit, "At most so many; 0 for all (default 100)")
            ->type_name("N"));

  auto show = std::make_shared<std::string>();
  leaf = Leaf(group, "show", "Show a schedule: its next times, what waits, its last starts",
              "  fluxctl schedule show nightly",
              [show](Context& context) { return ShowSchedule(context, *show); });
  leaf->add_option("SCHEDULE_ID", *show, "Which schedule")->required();

  AddScheduleEdit(group, /*create=*/false);
  AddSchedulePause(group, /*pause=*/true);
  AddSchedulePause(group, /*pause=*/false);

  auto trigger = std::make_shared<ScheduleTriggerOptions>();
  leaf = Leaf(group, "trigger", "Start one now, also while it is paused",
              "  fluxctl schedule trigger nightly\n"
              "  fluxctl schedule trigger nightly --overlap allow-all",
              [trigger](Context& context) { return TriggerSchedule(context, *trigger); });
  leaf->add_option("SCHEDULE_ID", trigger->id, "Which schedule")->required();
  Words(leaf->add_option("--overlap", trigger->overlap,
                         "If the last run is still open (default: the schedule's policy)")
            ->type_name("POLICY"),
        OverlapWords());

  auto backfill = std::make_shared<ScheduleBackfillOptions>();
  leaf = Leaf(group, "backfill", "Start one for each time in a range of the past",
              "  fluxctl schedule backfill nightly --from 2025-01-01 --to 2025-01-31\n"
              "  fluxctl schedule backfill poll --from 3h --overlap allow-all",
              [backfill](Context& context) { return BackfillSchedule(context, *backfill); });
  leaf->add_option("SCHEDULE_ID", backfill->id, "Which schedule")->required();
  leaf->add_option("--from", backfill->from,
                   "2h ago (2h), a date (UTC) or an RFC 3339 time; included")
      ->type_name("WHEN")
      ->required();
  leaf->add_option("--to", backfill->to,
                   "The same; included, a date with its whole day (default: now)")
      ->type_name("WHEN");
  Words(leaf->add_option("--overlap", backfill->overlap,
                         "If the last run is still open (default: buffer-all, one after the other)")
            ->type_name("POLICY"),
        OverlapWords());

  auto deleted = std::make_shared<std::string>();
  leaf = Leaf(group, "delete", "Delete a schedule; what it has started goes on",
              "  fluxctl schedule delete nightly",
              [deleted](Context& context) { return DeleteSchedule(context, *deleted); });
  leaf->add_option("SCHEDULE_ID", *deleted, "Which schedule")->required();
}

}  // namespace flux::ctl
