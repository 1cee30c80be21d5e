#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <map>
#include <random>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "client/fluxctl/bulk.h"
#include "client/fluxctl/commands.h"
#include "client/fluxctl/view.h"
#include "proto/bridge.h"

namespace flux::ctl {
namespace {

using v1::WorkflowService;

constexpr uint32_t kPageSize = 500;
constexpr absl::Duration kResultPoll = absl::Seconds(30);  // the service allows 60
constexpr absl::Duration kResultPause = absl::Milliseconds(100);

v1::Payload JsonPayload(std::string text) {
  v1::Payload payload;
  payload.set_encoding(v1::ENCODING_JSON);
  payload.set_data(std::move(text));
  return payload;
}

// The value an option's word stands for; the words are those of the proto with dashes.
template <typename Enum>
Enum ParseWord(const google::protobuf::EnumDescriptor& descriptor, const std::string& word) {
  for (int i = 0; i < descriptor.value_count(); ++i) {
    std::string name = EnumName(descriptor, descriptor.value(i)->number());
    std::replace(name.begin(), name.end(), '_', '-');
    if (name == word) return static_cast<Enum>(descriptor.value(i)->number());
  }
  return static_cast<Enum>(0);
}

std::string FailureLine(const std::string& workflow_id, v1::ExecutionStatus status,
                        const v1::Failure& failure) {
  const std::string why = FailureText(failure);
  return absl::StrCat(workflow_id, " ", StatusName(status), why.empty() ? "" : ": ", why);
}

// Prints how a closed execution ended: its result on stdout, a failure as a note.
ExitCode PrintResult(Context& context, const std::string& workflow_id,
                     const v1::GetResultResponse& response) {
  const v1::ExecutionStatus status = response.status();
  if (context.output != Output::kTable) {
    Json json;
    json["workflow_id"] = workflow_id;
    json["run_id"] = response.run_id();
    json["status"] = StatusName(status);
    json["result"] = response.has_result() ? PayloadToJson(response.result()) : Json(nullptr);
    json["failure"] = response.has_failure() ? ToJson(response.failure()) : Json(nullptr);
    context.Print(json);
  } else if (Succeeded(status)) {
    const v1::Payload& payload = response.result();
    Console& console = context.console;
    const bool text =
        payload.encoding() == v1::ENCODING_JSON || payload.encoding() == v1::ENCODING_LIST ||
        payload.encoding() == v1::ENCODING_NONE || payload.encoding() == v1::ENCODING_UNSPECIFIED;
    if (!response.has_result()) {
      console.Out("null\n");
    } else if (console.out_terminal()) {
      console.Out(absl::StrCat(EscapeJson(PayloadText(payload, 2)), "\n"));
    } else if (text) {
      console.Out(absl::StrCat(PayloadText(payload, -1), "\n"));
    } else {
      console.Out(payload.data());  // a file or a pipe takes the bytes as they are
    }
    if (status == v1::EXECUTION_STATUS_SKIPPED) {
      console.Note(absl::StrCat(workflow_id, " was skipped: it has no result"));
    }
  }
  if (Succeeded(status)) return kExitOk;
  context.console.Note(FailureLine(workflow_id, status, response.failure()));
  return kExitWorkflowFailed;
}

// Asks until the execution is closed, over restarts of the coordinator, to the connection's
// deadline.
absl::StatusOr<v1::GetResultResponse> AwaitResult(Context& context, const v1::ExecutionRef& ref,
                                                  bool wait) {
  Connection& connection = context.connection;
  v1::GetResultRequest request;
  *request.mutable_execution() = ref;
  bool lost = false;
  while (true) {
    const absl::Duration left = connection.deadline() - absl::Now();
    const absl::Duration poll =
        wait ? std::clamp(left, absl::ZeroDuration(), kResultPoll) : absl::ZeroDuration();
    // Answered a little before our own deadline, so that the time's end is told apart from a silent
    // server.
    request.set_wait_ms(static_cast<uint32_t>(absl::ToInt64Milliseconds(poll * 0.9)));
    const absl::Time asked = absl::Now();
    absl::StatusOr<v1::GetResultResponse> response =
        connection.Call(connection.workflows(), &WorkflowService::Stub::GetResult, request, poll);
    const bool over = absl::Now() >= connection.deadline() - absl::Milliseconds(1);
    if (!response.ok()) {
      const bool again =
          wait && !over && connection.reached() &&
          (absl::IsUnavailable(response.status()) || absl::IsDeadlineExceeded(response.status()));
      if (wait && over && absl::IsDeadlineExceeded(response.status())) {
        return absl::DeadlineExceededError(
            absl::StrCat(ref.workflow_id(), " has not closed at the end of --timeout"));
      }
      if (!again) return response.status();
      if (!lost) {
        context.console.Note(
            absl::StrCat("lost the connection to ", connection.address(), "; trying again"));
      }
      lost = true;
      continue;
    }
    if (lost) context.console.Note(absl::StrCat("connected to ", connection.address(), " again"));
    lost = false;
    if (!IsOpen(response->status()) || !wait) return response;
    if (over || poll < absl::Milliseconds(10)) {
      return absl::DeadlineExceededError(absl::StrCat(ref.workflow_id(), " is still ",
                                                      StatusName(response->status()),
                                                      " at the end of --timeout"));
    }
    request.mutable_execution()->set_run_id(response->run_id());
    // A server that does not wait as asked shall not be asked in a tight loop.
    const absl::Duration early = poll * 0.9 - (absl::Now() - asked);
    if (early > absl::ZeroDuration()) absl::SleepFor(std::min(early, kResultPause));
  }
}

absl::Status StopOne(Context& context, const StopOptions& options, const v1::ExecutionRef& ref) {
  Connection& connection = context.connection;
  if (options.terminate) {
    v1::TerminateExecutionRequest request;
    *request.mutable_execution() = ref;
    request.set_reason(options.reason);
    request.set_identity(Identity());
    return connection
        .Call(connection.workflows(), &WorkflowService::Stub::TerminateExecution, request)
        .status();
  }
  v1::CancelExecutionRequest request;
  *request.mutable_execution() = ref;
  request.set_reason(options.reason);
  request.set_identity(Identity());
  return connection.Call(connection.workflows(), &WorkflowService::Stub::CancelExecution, request)
      .status();
}

absl::StatusOr<v1::StartWorkflowResponse> Start(Context& context, const StartOptions& options) {
  FLUX_ASSIGN_OR_RETURN(const v1::StartWorkflowRequest request,
                        BuildStart(options, context.name_space));
  absl::StatusOr<v1::StartWorkflowResponse> response = context.connection.Call(
      context.connection.workflows(), &WorkflowService::Stub::StartWorkflow, request);
  if (absl::IsAlreadyExists(response.status())) {
    const bool closed = absl::StrContains(response.status().message(), "reuse policy");
    return WithHint(response.status(),
                    closed ? "give another --id, or --reuse allow to start this one once more"
                           : "--on-conflict use-existing answers with the running one, "
                             "terminate-existing replaces it");
  }
  if (absl::IsNotFound(response.status())) {
    return WithHint(response.status(), "'fluxctl definition list' shows what the server knows");
  }
  return response;
}

}  // namespace

std::string RandomId() {
  std::random_device device;
  std::string id;
  for (int i = 0; i < 4; ++i) id += absl::StrFormat("%08x", device());
  return id;
}

absl::StatusOr<v1::Payload> ReadJsonArgument(const std::string& option,
                                             const InputArgument& argument) {
  std::string name = option;
  std::string text = argument.value;
  if (argument.file || argument.value == "-") {
    name = argument.value == "-" ? "standard input" : Escape(argument.value, Lines::kOne);
    FLUX_ASSIGN_OR_RETURN(text, ReadInput(argument.value));
  }
  FLUX_ASSIGN_OR_RETURN(text, CheckJson(name, text));
  return JsonPayload(std::move(text));
}

ExitCode ExitCodeOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return kExitOk;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
      return kExitUsage;
    case absl::StatusCode::kNotFound:
      return kExitNotFound;
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kAborted:
      return kExitConflict;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
      return kExitUnavailable;
    case absl::StatusCode::kCancelled:
      return kExitInterrupted;
    default:
      return kExitOther;
  }
}

std::string Identity() {
  std::array<char, 256> host{};
  if (gethostname(host.data(), host.size() - 1) != 0) host[0] = '\0';
  const char* user = std::getenv("USER");
  const std::string who = user != nullptr && *user != '\0' ? user : absl::StrCat("uid", getuid());
  return absl::StrCat("fluxctl:", who, "@", host.data());
}

absl::Time Context::Now() const { return connection.server_time().value_or(absl::Now()); }

absl::StatusOr<absl::Time> Context::AskNow() {
  if (!connection.server_time().has_value()) {
    FLUX_RETURN_IF_ERROR(connection
                             .Call(connection.admin(), &v1::AdminService::Stub::GetServerInfo,
                                   v1::GetServerInfoRequest())
                             .status());
  }
  return Now();
}

absl::StatusOr<absl::Time> Context::TimeOf(
    const std::string& option,
    const std::function<absl::StatusOr<absl::Time>(absl::Time now)>& parse) {
  FLUX_RETURN_IF_ERROR(ForOption(option, parse(Now())).status());
  FLUX_ASSIGN_OR_RETURN(const absl::Time now, AskNow());
  return ForOption(option, parse(now));
}

v1::ExecutionRef Context::Ref(const std::string& workflow_id, const std::string& run_id) const {
  v1::ExecutionRef ref;
  ref.set_namespace_(name_space);
  ref.set_workflow_id(workflow_id);
  ref.set_run_id(run_id);
  return ref;
}

void Context::Print(const Json& json) {
  const std::string text = Dump(json, output == Output::kJsonLines ? -1 : 2);
  console.Out(absl::StrCat(console.out_terminal() ? EscapeJson(text) : text, "\n"));
}

void Context::Print(Table& table) { console.Out(Render(console.out_theme(), table)); }

void Context::Print(const Block& block) { console.Out(Render(console.out_theme(), block)); }

void Listing::Add(Table page) {
  if (!widths_.empty()) page.widths = widths_;
  page.headers = first_;
  // The headers of the first page hold for all: their widths come back with it.
  context_.Print(page);
  widths_ = page.widths;
  first_ = false;
}

void Listing::Add(const Json& element) {
  if (context_.output == Output::kJsonLines) {
    context_.Print(element);
    return;
  }
  std::string text = Dump(element, 2);
  if (context_.console.out_terminal()) text = EscapeJson(text);
  std::string out = first_ ? absl::StrCat("{\n  \"", name_, "\": [\n    ") : std::string(",\n    ");
  for (const char c : text) {
    out.push_back(c);
    if (c == '\n') out.append("    ");
  }
  context_.console.Out(out);
  first_ = false;
}

void Listing::Finish() {
  if (context_.output != Output::kJson) return;
  context_.console.Out(first_ ? absl::StrCat("{\n  \"", name_, "\": []\n}\n")
                              : std::string("\n  ]\n}\n"));
}

absl::StatusOr<v1::StartWorkflowRequest> BuildStart(const StartOptions& options,
                                                    const std::string& name_space) {
  v1::StartWorkflowRequest request;
  request.set_namespace_(name_space);
  request.set_workflow(options.workflow);
  request.set_version(options.version);
  request.set_workflow_id(options.workflow_id);
  request.set_request_id(options.request_id.empty() ? RandomId() : options.request_id);
  request.set_identity(Identity());
  request.set_conflict_policy(
      ParseWord<v1::ConflictPolicy>(*v1::ConflictPolicy_descriptor(), options.on_conflict));
  request.set_reuse_policy(
      ParseWord<v1::ReusePolicy>(*v1::ReusePolicy_descriptor(), options.reuse));
  if (!options.execution_timeout.empty()) {
    FLUX_ASSIGN_OR_RETURN(
        const absl::Duration timeout,
        ForOption("--execution-timeout", ParseDuration(options.execution_timeout)));
    request.set_execution_timeout_ms(absl::ToInt64Milliseconds(timeout));
  }
  for (const std::string& label : options.labels) {
    const std::size_t equals = label.find('=');
    if (equals == std::string::npos || equals == 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("--label \"", Escape(label, Lines::kOne), "\" is not KEY=VALUE"));
    }
    if (!request.mutable_labels()
             ->insert({label.substr(0, equals), label.substr(equals + 1)})
             .second) {
      return absl::InvalidArgumentError(absl::StrCat(
          "--label \"", Escape(label.substr(0, equals), Lines::kOne), "\" is given twice"));
    }
  }
  bool stdin_taken = false;
  for (const InputArgument& input : options.inputs) {
    if (input.value == "-" && std::exchange(stdin_taken, true)) {
      return absl::InvalidArgumentError("standard input can be only one of the parameters");
    }
    FLUX_ASSIGN_OR_RETURN(*request.add_inputs(), ReadJsonArgument("--input", input));
  }
  if (options.args.has_value()) {
    if (!options.inputs.empty()) {
      return absl::InvalidArgumentError(
          "--args gives all parameters at once; it cannot be combined with --input");
    }
    FLUX_ASSIGN_OR_RETURN(const std::string text, CheckJson("--args", *options.args));
    FLUX_ASSIGN_OR_RETURN(std::vector<std::string> parts, SplitJsonArray("--args", text));
    for (std::string& part : parts) *request.add_inputs() = JsonPayload(std::move(part));
  }
  return request;
}

CommandResult StartWorkflow(Context& context, const StartOptions& options) {
  FLUX_ASSIGN_OR_RETURN(const v1::StartWorkflowResponse response, Start(context, options));
  if (context.output != Output::kTable) {
    context.Print(ToJson(response));
    return kExitOk;
  }
  Table table;
  table.columns = {{.header = "WORKFLOW ID"}, {.header = "RUN ID"}, {.header = "STARTED"}};
  table.rows.push_back({Cell(response.workflow_id(), Style::kBold), Cell(response.run_id()),
                        Cell(response.started() ? "yes" : "no, it had been started")});
  context.Print(table);
  return kExitOk;
}

CommandResult RunWorkflow(Context& context, const StartOptions& options) {
  FLUX_ASSIGN_OR_RETURN(const v1::StartWorkflowResponse started, Start(context, options));
  if (!options.quiet) {
    context.console.Note(absl::StrCat(started.started() ? "started " : "joined ",
                                      started.workflow_id(), " (run ", started.run_id(), ")"));
  }
  const v1::ExecutionRef ref = context.Ref(started.workflow_id(), started.run_id());
  if (!options.quiet) FLUX_RETURN_IF_ERROR(Follow(context, ref, WatchTo::kErr).status());
  FLUX_ASSIGN_OR_RETURN(const v1::GetResultResponse result,
                        AwaitResult(context, ref, /*wait=*/true));
  return PrintResult(context, started.workflow_id(), result);
}

namespace {

// The time of the past that an option gives; unset (0) where it gives none.
absl::StatusOr<int64_t> WhenMs(Context& context, const std::string& option,
                               const std::string& text) {
  if (text.empty()) return 0;
  FLUX_ASSIGN_OR_RETURN(const absl::Time time, context.TimeOf(option, [&](absl::Time now) {
    return ParseWhen(text, now);
  }));
  return absl::ToUnixMillis(time);
}

}  // namespace

absl::StatusOr<v1::ExecutionFilter> BuildFilter(Context& context, const FilterOptions& options) {
  v1::ExecutionFilter filter;
  // Blank it would match everything, which an unset variable of a script must not come to.
  if (options.query.has_value() &&
      options.query->find_first_not_of(" \t\r\n") == std::string::npos) {
    return absl::InvalidArgumentError("--query is blank; leave it out to mean everything");
  }
  filter.set_query(options.query.value_or(""));
  filter.set_namespace_(context.name_space);
  filter.set_workflow(options.workflow);
  filter.set_workflow_id_prefix(options.id_prefix);
  for (const std::string& status : options.statuses) {
    filter.add_statuses(ParseWord<v1::ExecutionStatus>(*v1::ExecutionStatus_descriptor(), status));
  }
  FLUX_ASSIGN_OR_RETURN(const int64_t after_ms,
                        WhenMs(context, "--started-after", options.started_after));
  FLUX_ASSIGN_OR_RETURN(const int64_t before_ms,
                        WhenMs(context, "--started-before", options.started_before));
  filter.set_started_after_ms(after_ms);
  filter.set_started_before_ms(before_ms);
  return filter;
}

CommandResult ListWorkflows(Context& context, const ListOptions& options) {
  v1::ListExecutionsRequest request;
  FLUX_ASSIGN_OR_RETURN(*request.mutable_filter(), BuildFilter(context, options.filter));
  Listing listing(context, "executions");
  uint64_t shown = 0;
  while (true) {
    const uint64_t left = options.limit == 0 ? kPageSize : options.limit - shown;
    request.set_page_size(static_cast<uint32_t>(std::min<uint64_t>(left, kPageSize)));
    absl::StatusOr<v1::ListExecutionsResponse> answer = context.connection.Call(
        context.connection.workflows(), &WorkflowService::Stub::ListExecutions, request);
    if (!answer.ok()) return ExplainQuery(answer.status(), request.filter());
    v1::ListExecutionsResponse& page = *answer;
    auto& executions = *page.mutable_executions();
    if (options.limit != 0 && static_cast<uint64_t>(executions.size()) > left) {
      executions.DeleteSubrange(static_cast<int>(left), executions.size() - static_cast<int>(left));
    }
    shown += static_cast<uint64_t>(executions.size());
    if (context.output == Output::kTable) {
      if (shown > 0) listing.Add(ExecutionsTable(executions, context.Now()));
    } else {
      for (const v1::ExecutionInfo& info : executions) listing.Add(ToJson(info));
    }
    request.set_page_token(page.next_page_token());
    if (page.next_page_token().empty()) break;
    if (options.limit != 0 && shown >= options.limit) {
      context.console.Note(
          absl::StrCat("there are more than these ", shown, "; --limit 0 shows all"));
      break;
    }
  }
  listing.Finish();
  if (shown == 0 && context.output == Output::kTable) {
    context.console.Note(options.filter.empty() ? "no executions" : "no executions match");
  }
  return kExitOk;
}

CommandResult CountWorkflows(Context& context, const FilterOptions& options) {
  v1::CountExecutionsRequest request;
  FLUX_ASSIGN_OR_RETURN(*request.mutable_filter(), BuildFilter(context, options));
  const absl::StatusOr<v1::CountExecutionsResponse> response = context.connection.Call(
      context.connection.workflows(), &WorkflowService::Stub::CountExecutions, request);
  if (!response.ok()) return ExplainQuery(response.status(), request.filter());
  if (context.output != Output::kTable) {
    context.Print(ToJson(*response));
    return kExitOk;
  }
  Table table = CountTable(*response);
  context.Print(table);
  return kExitOk;
}

CommandResult ShowWorkflow(Context& context, const ShowOptions& options) {
  v1::DescribeExecutionRequest request;
  *request.mutable_execution() = context.Ref(options.target.workflow_id, options.target.run_id);
  request.set_items_max(options.items);
  // Documents are for programs, which want all there is.
  request.set_payloads(options.payloads || context.output != Output::kTable);
  FLUX_ASSIGN_OR_RETURN(
      const v1::DescribeExecutionResponse response,
      context.connection.Call(context.connection.workflows(),
                              &WorkflowService::Stub::DescribeExecution, request));
  if (context.output != Output::kTable) {
    context.Print(ToJson(response));
    return kExitOk;
  }
  const absl::Time now = context.Now();
  context.Print(ExecutionBlock(response, now));
  if (response.steps().empty()) return kExitOk;
  context.console.Out("\n");
  Table table = StepsTable(response, now,
                           {.frames_max = options.items == 0 ? 10 : options.items,
                            .payloads = options.payloads,
                            .unicode = context.console.out_theme().unicode});
  context.Print(table);
  return kExitOk;
}

CommandResult ShowHistory(Context& context, const HistoryCommandOptions& options) {
  v1::GetHistoryRequest request;
  *request.mutable_execution() = context.Ref(options.target.workflow_id, options.target.run_id);
  request.set_payloads(options.payloads || context.output != Output::kTable);
  HistoryOptions view{.absolute = options.absolute, .origin_ms = 0, .payloads = options.payloads};
  Listing listing(context, "events");
  uint64_t shown = 0;
  do {
    FLUX_ASSIGN_OR_RETURN(v1::GetHistoryResponse page,
                          context.connection.Call(context.connection.workflows(),
                                                  &WorkflowService::Stub::GetHistory, request));
    auto& events = *page.mutable_events();
    if (options.limit != 0 && shown + static_cast<uint64_t>(events.size()) > options.limit) {
      const int keep = static_cast<int>(options.limit - shown);
      events.DeleteSubrange(keep, events.size() - keep);
    }
    if (shown == 0 && !events.empty()) view.origin_ms = events.Get(0).time_ms();
    shown += static_cast<uint64_t>(events.size());
    if (context.output == Output::kTable) {
      if (!events.empty()) listing.Add(HistoryTable(events, view));
    } else {
      for (const v1::HistoryEvent& event : events) listing.Add(ToJson(event));
    }
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty() && (options.limit == 0 || shown < options.limit));
  listing.Finish();
  return kExitOk;
}

CommandResult ShowResult(Context& context, const ResultOptions& options) {
  const v1::ExecutionRef ref = context.Ref(options.target.workflow_id, options.target.run_id);
  FLUX_ASSIGN_OR_RETURN(const v1::GetResultResponse response,
                        AwaitResult(context, ref, !options.no_wait));
  if (IsOpen(response.status())) {
    return WithHint(
        absl::FailedPreconditionError(absl::StrCat(
            ref.workflow_id(), " is ", StatusName(response.status()), " and has no result yet")),
        "without --no-wait this command waits for it");
  }
  return PrintResult(context, ref.workflow_id(), response);
}

CommandResult WatchWorkflow(Context& context, const TargetOptions& options) {
  const v1::ExecutionRef ref = context.Ref(options.workflow_id, options.run_id);
  // A document comes once, at the end; until then progress is a note.
  const WatchTo to = context.output == Output::kTable  ? WatchTo::kOut
                     : context.output == Output::kJson ? WatchTo::kErr
                                                       : WatchTo::kOutJsonLines;
  FLUX_ASSIGN_OR_RETURN(const v1::WatchExecutionResponse last, Follow(context, ref, to));
  if (context.output == Output::kJson) context.Print(ToJson(last));
  if (Succeeded(last.info().status())) return kExitOk;
  context.console.Note(FailureLine(ref.workflow_id(), last.info().status(), last.failure()));
  return kExitWorkflowFailed;
}

CommandResult StopWorkflows(Context& context, const StopOptions& options) {
  BulkVerb verb = {
      .verb = options.terminate ? "terminate" : "cancel",
      .past = options.terminate ? "terminated" : "cancel requested",
      // A closed execution cannot be stopped: unless asked otherwise, only open ones are meant.
      .statuses = {"running", "cancelling", "failing", "paused"},
      .reason = options.reason};
  if (options.terminate) {
    verb.operation.mutable_terminate();
  } else {
    verb.operation.mutable_cancel();
  }
  return OnExecutions(context, options.bulk, verb,
                      [&](const v1::ExecutionRef& ref) -> absl::StatusOr<std::string> {
                        FLUX_RETURN_IF_ERROR(StopOne(context, options, ref));
                        return std::string();
                      });
}

}  // namespace flux::ctl
