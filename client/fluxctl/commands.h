// The commands: options in, calls made, views printed. app.h fills the options from the command
// line.
#ifndef FLUX_CLIENT_FLUXCTL_COMMANDS_H_
#define FLUX_CLIENT_FLUXCTL_COMMANDS_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/fluxctl/connection.h"
#include "client/fluxctl/console.h"
#include "client/fluxctl/json.h"
#include "client/fluxctl/table.h"
#include "flux/v1/workflow.pb.h"

namespace flux::ctl {

// What the process answers; also in the help's footer.
enum ExitCode : int {
  kExitOk = 0,
  kExitWorkflowFailed = 1,
  kExitUsage = 2,
  kExitNotFound = 3,
  kExitConflict = 4,
  kExitUnavailable = 5,
  kExitOther = 6,
  kExitInterrupted = 130,  // as shells have it
};
ExitCode ExitCodeOf(const absl::Status& status);

// What every command works with. Lives as long as the command.
struct Context {
  Console& console;
  Connection& connection;
  std::string name_space;  // empty: the server's default
  Output output = Output::kTable;

  // The coordinator's clock, which ages are measured by: as its last answer had it. Ours before the
  // first, and where it does not tell.
  absl::Time Now() const;
  // The same, and asks where no answer has told yet.
  absl::StatusOr<absl::Time> AskNow();
  // The time that `option` gives, where `parse` reads it by a clock. The coordinator is asked for
  // its clock only when ours would do: what is malformed needs nobody else to say so.
  absl::StatusOr<absl::Time> TimeOf(
      const std::string& option,
      const std::function<absl::StatusOr<absl::Time>(absl::Time now)>& parse);
  v1::ExecutionRef Ref(const std::string& workflow_id, const std::string& run_id) const;
  // Prints in the chosen form. A document is pretty in kJson and one line in kJsonLines.
  void Print(const Json& json);
  void Print(Table& table);
  void Print(const Block& block);
};

// Prints the parts of one long listing as they arrive: table pages that line up, elements of the
// array `name` of one document, or one object a line. Finish() must be called once, also if nothing
// came.
class Listing {
 public:
  Listing(Context& context, std::string name) : context_(context), name_(std::move(name)) {}
  void Add(Table page);           // only in kTable
  void Add(const Json& element);  // only in kJson and kJsonLines
  void Finish();

 private:
  Context& context_;
  const std::string name_;
  bool first_ = true;
  std::vector<std::size_t> widths_;
};

// A command's answer is its exit code; an error is printed by the caller.
using CommandResult = absl::StatusOr<ExitCode>;

struct InputArgument {
  bool file = false;  // `value` is a path; "-" reads stdin either way
  std::string value;
};

struct StartOptions {
  std::string workflow;
  std::string version;
  std::string workflow_id;
  std::string request_id;             // empty: a random one, which makes our own repeats safe
  std::vector<InputArgument> inputs;  // one a parameter, in order
  std::optional<std::string> args;    // a JSON array of all parameters instead
  std::vector<std::string> labels;    // key=value
  std::string on_conflict;            // "", reject, use-existing, terminate-existing
  std::string reuse;                  // "", allow, allow-if-failed, reject
  std::string execution_timeout;
  bool quiet = false;  // run only
};
// The request that the options ask for; reads files and stdin. InvalidArgument names the option.
absl::StatusOr<v1::StartWorkflowRequest> BuildStart(const StartOptions& options,
                                                    const std::string& name_space);

CommandResult StartWorkflow(Context& context, const StartOptions& options);
CommandResult RunWorkflow(Context& context, const StartOptions& options);

struct FilterOptions {
  std::string workflow;
  std::vector<std::string> statuses;
  std::string id_prefix;
  std::string started_after;
  std::string started_before;
  std::optional<std::string> query;  // in the server's query language
  bool empty() const {
    return workflow.empty() && statuses.empty() && id_prefix.empty() && started_after.empty() &&
           started_before.empty() && !query.has_value();
  }
};
// Times are by the coordinator's clock, which is asked where there are some.
absl::StatusOr<v1::ExecutionFilter> BuildFilter(Context& context, const FilterOptions& options);
// The server's answer to a filter; an error about its query also shows the place.
absl::Status ExplainQuery(const absl::Status& status, const v1::ExecutionFilter& filter);

struct ListOptions {
  FilterOptions filter;
  uint64_t limit = 100;  // 0: all
};
CommandResult ListWorkflows(Context& context, const ListOptions& options);
CommandResult CountWorkflows(Context& context, const FilterOptions& options);

struct DeletionsOptions {
  std::string workflow_id;  // empty: of all
  uint64_t limit = 100;     // 0: all
};
CommandResult ListDeletions(Context& context, const DeletionsOptions& options);

struct TargetOptions {
  std::string workflow_id;
  std::string run_id;
};
struct ShowOptions {
  TargetOptions target;
  uint32_t items = 10;
  bool payloads = false;
};
CommandResult ShowWorkflow(Context& context, const ShowOptions& options);

struct HistoryCommandOptions {
  TargetOptions target;
  bool absolute = false;
  bool payloads = false;
  uint64_t limit = 0;  // 0: all
};
CommandResult ShowHistory(Context& context, const HistoryCommandOptions& options);

struct ResultOptions {
  TargetOptions target;
  bool no_wait = false;
};
CommandResult ShowResult(Context& context, const ResultOptions& options);
CommandResult WatchWorkflow(Context& context, const TargetOptions& options);

// Which executions, and whether to ask.
struct BulkOptions {
  std::vector<std::string> workflow_ids;
  std::string run_id;    // with exactly one workflow id
  FilterOptions filter;  // instead of ids: everything that matches
  bool yes = false;      // do not ask
  // With filters, where the coordinator does the work:
  std::optional<uint32_t> rate;  // executions a second
  bool detach = false;           // do not wait for the end
};

struct StopOptions {
  bool terminate = false;
  BulkOptions bulk;
  std::string reason;
};
CommandResult StopWorkflows(Context& context, const StopOptions& options);

struct SignalOptions {
  TargetOptions target;
  std::string event;
  InputArgument payload;  // JSON
  std::string event_id;   // empty: a random one, which makes our own repeats safe
  std::string deliver_at;
  std::string deliver_in;
};
CommandResult SignalWorkflow(Context& context, const SignalOptions& options);

struct EventsOptions {
  TargetOptions target;
  bool payloads = false;
};
CommandResult ListEvents(Context& context, const EventsOptions& options);

// What an operator does to executions.
enum class RepairKind {
  kPause,
  kResume,
  kRetry,
  kPark,
  kUnpark,
  kSkip,
  kSetResult,
  kRewind,
  kCancelEvent,
  kEditEvent,
  kReplayEvent,
  kMigrate,
  kDelete,
};
struct RepairOptions {
  RepairKind kind = RepairKind::kPause;
  BulkOptions bulk;     // a step or an event: one workflow id, or filters
  std::string name;     // the step's path, the event's name or its id, a definition
  uint64_t number = 0;  // of an event to edit; 0: the newest of that name
  InputArgument value;  // set-result, edit and replay: JSON
  std::string reason;
  bool dry_run = false;  // migrate: says what would be done
};
CommandResult RepairWorkflows(Context& context, const RepairOptions& options);

// What the coordinator does to all that match a filter.
CommandResult ListBulks(Context& context);
CommandResult ShowBulk(Context& context, const std::string& id);
CommandResult WatchBulk(Context& context, const std::string& id);
CommandResult CancelBulk(Context& context, const std::string& id);

CommandResult ListWorkers(Context& context, const std::string& queue);
CommandResult ListQueues(Context& context);
CommandResult ShowQueue(Context& context, const std::string& name);

struct DefinitionOptions {
  std::string name;
  std::string version;
  std::string hash;  // its beginning, in hex
  uint64_t limit = 0;
};
CommandResult ListDefinitions(Context& context, const DefinitionOptions& options);
CommandResult ShowDefinition(Context& context, const DefinitionOptions& options);
CommandResult PutDefinition(Context& context, const std::string& path);
struct DiffOptions {
  std::string from;  // NAME, NAME@VERSION, @VERSION (of `from`'s name) or a hash
  std::string to;
};
CommandResult DiffDefinitions(Context& context, const DiffOptions& options);
// The definition that NAME, NAME@VERSION, @VERSION (of `name`) or a hash names.
absl::StatusOr<v1::GetDefinitionResponse> FindDefinition(Context& context, const std::string& spec,
                                                         const std::string& name);

// The hash (bytes) of the one definition, of those called `name` or of all where that is empty,
// whose hash begins with the hex digits `prefix`; none if there is no such one. InvalidArgument
// names those among which it does not decide.
absl::StatusOr<std::optional<std::string>> FindHash(Context& context, const std::string& prefix,
                                                    const std::string& name);
// Whether `text` can be the beginning of a definition's hash, or the whole one: 6 to 64 hex digits.
bool IsHashPrefix(const std::string& text);

CommandResult ShowServer(Context& context);
CommandResult VerifyWorkflow(Context& context, const TargetOptions& options);

// watch.cc: follows an execution until it closes, over restarts of the coordinator, to the
// connection's deadline.
enum class WatchTo { kNowhere, kOut, kErr, kOutJsonLines };
// The last answer of the stream: a closed execution. DeadlineExceeded, NotFound, Unavailable if it
// never answered, Cancelled when a person interrupted the live view.
absl::StatusOr<v1::WatchExecutionResponse> Follow(Context& context, v1::ExecutionRef ref,
                                                  WatchTo to);

// A parameter given on the command line, in a file or on stdin, checked to be JSON. `option` names
// it in errors. InvalidArgument, NotFound.
absl::StatusOr<v1::Payload> ReadJsonArgument(const std::string& option,
                                             const InputArgument& argument);

// 32 hexadecimal digits.
std::string RandomId();

// Who asks, for the audit line: user@host.
std::string Identity();

}  // namespace flux::ctl

#endif  // FLUX_CLIENT_FLUXCTL_COMMANDS_H_
