#include "client/fluxctl/view.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/fluxctl/json.h"
#include "proto/bridge.h"

namespace flux::ctl {
namespace {

constexpr std::size_t kPayloadColumns = 60;  // of a payload beside other text
constexpr std::size_t kHashHexShown = 12;
constexpr std::size_t kTasksShown = 4;
constexpr int kScopeDepthMax = 32;  // scopes nest; a damaged definition may do so without end

std::string ShortHash(const std::string& hash) {
  return absl::BytesToHexString(hash).substr(0, kHashHexShown);
}

std::string NameAndVersion(const std::string& name, const std::string& version) {
  return version.empty() ? name : absl::StrCat(name, " ", version);
}

std::string JoinSome(const google::protobuf::RepeatedPtrField<std::string>& names) {
  std::string out;
  for (int i = 0; i < names.size(); ++i) {
    if (i == static_cast<int>(kTasksShown)) {
      return absl::StrCat(out, " and ", names.size() - i, " more");
    }
    absl::StrAppend(&out, i == 0 ? "" : ", ", names.Get(i));
  }
  return out;
}

std::string PayloadPreview(const v1::Payload& payload) {
  return Fit(Escape(PayloadText(payload, -1), Lines::kOne), kPayloadColumns, /*unicode=*/false);
}

std::string Ago(int64_t time_ms, absl::Time now) {
  return time_ms == 0 ? std::string()
                      : absl::StrCat(AgeText(time_ms, now), " ago (", TimeText(time_ms), ")");
}

int64_t Millis(absl::Time time) { return absl::ToUnixMillis(time); }

// What an unusual status means for what happens next.
const char* StatusNote(v1::ExecutionStatus status) {
  switch (status) {
    case v1::EXECUTION_STATUS_PAUSED:
      return " (nothing more is handed out until it is resumed)";
    case v1::EXECUTION_STATUS_FAILING:
    case v1::EXECUTION_STATUS_CANCELLING:
      return " (undoing what its completed steps did)";
    default:
      return "";
  }
}

// What a frame as a whole is at, for its line in the tree.
v1::StepState FrameState(const v1::FrameInfo& frame) {
  static constexpr v1::StepState kByWeight[] = {
      v1::STEP_STATE_FAILED,      v1::STEP_STATE_PARKED,    v1::STEP_STATE_RUNNING,
      v1::STEP_STATE_BACKING_OFF, v1::STEP_STATE_SCHEDULED, v1::STEP_STATE_WAITING,
      v1::STEP_STATE_CANCELLED,   v1::STEP_STATE_PENDING,   v1::STEP_STATE_COMPLETED,
      v1::STEP_STATE_SKIPPED};
  for (const v1::StepState state : kByWeight) {
    for (const v1::StepInfo& step : frame.steps()) {
      if (step.state() == state) return state;
    }
  }
  return v1::STEP_STATE_UNSPECIFIED;
}

class StepTree {
 public:
  StepTree(absl::Time now, const StepsOptions& options, Table* table)
      : now_(now), options_(options), table_(table) {}

  void Add(const google::protobuf::RepeatedPtrField<v1::StepInfo>& steps, bool more_follow) {
    for (int i = 0; i < steps.size(); ++i) {
      last_.push_back(i + 1 == steps.size() && !more_follow);
      AddStep(steps.Get(i), "");
      last_.pop_back();
    }
  }

 private:
  void AddStep(const v1::StepInfo& step, const std::string& label) {
    Cell name(label.empty() ? step.name() : absl::StrCat(label, ": ", step.name()), Style::kBold);
    name.indent = TreeIndent(last_, options_.unicode);
    table_->rows.push_back({std::move(name), Cell(step.kind(), Style::kDim),
                            Cell(StateName(step.state()), StateStyle(step.state())),
                            Cell(Attempts(step)), Cell(StepDuration(step, now_)),
                            Cell(Detail(step))});
    const bool hidden =
        step.items() > static_cast<uint64_t>(step.frames_size()) && step.frames_size() > 0;
    for (int i = 0; i < step.frames_size(); ++i) {
      last_.push_back(i + 1 == step.frames_size() && !hidden);
      AddFrame(step.frames(i));
      last_.pop_back();
    }
    if (hidden) {
      last_.push_back(true);
      const uint64_t more = step.items() - static_cast<uint64_t>(step.frames_size());
      Cell note(absl::StrCat(more, " more"), Style::kDim);
      note.indent = TreeIndent(last_, options_.unicode);
      table_->rows.push_back({std::move(note), Cell(" "), Cell(" "), Cell(" "), Cell(" "),
                              Cell("--items N shows more", Style::kDim)});
      last_.pop_back();
    }
  }

  void AddFrame(const v1::FrameInfo& frame) {
    const std::string label =
        frame.label().empty() ? absl::StrCat("item ", frame.item()) : frame.label();
    if (frame.steps_size() == 1) {
      AddStep(frame.steps(0), label);
      return;
    }
    const v1::StepState state = FrameState(frame);
    Cell name(label);
    name.indent = TreeIndent(last_, options_.unicode);
    table_->rows.push_back({std::move(name), Cell(" "), Cell(StateName(state), StateStyle(state)),
                            Cell(" "), Cell(" ")});
    Add(frame.steps(), /*more_follow=*/false);
  }

  static std::string Attempts(const v1::StepInfo& step) {
    if (step.attempt() == 0) return "";
    return step.max_attempts() == 0 ? absl::StrCat(step.attempt())
                                    : absl::StrCat(step.attempt(), "/", step.max_attempts());
  }

  std::string Detail(const v1::StepInfo& step) const {
    std::vector<std::string> parts;
    if (step.items() > 0) parts.push_back(MapText(step, options_.frames_max));
    if (std::string why = StepDetail(step, now_); !why.empty()) parts.push_back(std::move(why));
    if (options_.payloads && step.has_progress()) {
      parts.push_back(absl::StrCat("progress ", PayloadPreview(step.progress())));
    }
    if (options_.payloads && step.has_output()) {
      parts.push_back(absl::StrCat("= ", PayloadPreview(step.output())));
    }
    return absl::StrJoin(parts, "; ");
  }

  const absl::Time now_;
  const StepsOptions options_;
  Table* const table_;
  std::vector<bool> last_;
};

std::string KindName(const v1::Step& step) {
  const auto* field = step.GetDescriptor()->FindFieldByNumber(static_cast<int>(step.kind_case()));
  return field == nullptr ? "" : field->name();
}

class DefinitionTree {
 public:
  DefinitionTree(const v1::Definition& definition, bool unicode, Table* table)
      : definition_(definition), unicode_(unicode), table_(table) {}

  void AddScope(uint32_t scope) {
    if (scope >= static_cast<uint32_t>(definition_.scopes_size()) ||
        last_.size() >= kScopeDepthMax) {
      return;
    }
    const auto& steps = definition_.scopes(static_cast<int>(scope)).steps();
    for (int i = 0; i < steps.size(); ++i) {
      last_.push_back(i + 1 == steps.size());
      AddStep(definition_.scopes(static_cast<int>(scope)), steps.Get(i));
      last_.pop_back();
    }
  }

 private:
  void AddStep(const v1::Scope& scope, const v1::Step& step) {
    Cell name(step.name(), Style::kBold);
    name.indent = TreeIndent(last_, unicode_);
    table_->rows.push_back({std::move(name), Cell(KindName(step), Style::kDim),
                            Cell(Sources(scope, step)), Cell(Detail(step))});
    const auto bodies = Bodies(step);
    for (std::size_t i = 0; i < bodies.size(); ++i) {
      if (bodies[i].first.empty()) {
        AddScope(bodies[i].second);
        continue;
      }
      last_.push_back(i + 1 == bodies.size());
      Cell label(bodies[i].first);
      label.indent = TreeIndent(last_, unicode_);
      table_->rows.push_back({std::move(label), Cell(" "), Cell(" ")});
      AddScope(bodies[i].second);
      last_.pop_back();
    }
  }

  // The scopes a step owns, each under a label; a lone body has none.
  static std::vector<std::pair<std::string, uint32_t>> Bodies(const v1::Step& step) {
    std::vector<std::pair<std::string, uint32_t>> bodies;
    if (step.has_map() && step.map().has_page_body()) {
      bodies.emplace_back("each page", step.map().page_body());
      bodies.emplace_back("each item", step.map().body());
    } else if (step.has_map()) {
      bodies.emplace_back("", step.map().body());
    }
    if (step.has_loop()) bodies.emplace_back("", step.loop().body());
    if (step.has_block()) bodies.emplace_back("", step.block().body());
    for (const auto& c : step.switch_().cases()) {
      bodies.emplace_back(absl::StrCat("case ", PayloadPreview(c.match())), c.body());
    }
    if (step.switch_().has_default_body())
      bodies.emplace_back("default", step.switch_().default_body());
    for (const auto& c : step.catches()) {
      bodies.emplace_back(c.types().empty()
                              ? "catch any failure"
                              : absl::StrCat("catch ", absl::StrJoin(c.types(), ", ")),
                          c.body());
    }
    if (bodies.size() > 1) {
      for (auto& [label, scope] : bodies) {
        if (label.empty()) label = "body";
      }
    }
    return bodies;
  }

  static std::string Source(const v1::Scope& scope, const v1::Input& input) {
    std::string text;
    switch (input.source_case()) {
      case v1::Input::kStep:
        text = input.step() < static_cast<uint32_t>(scope.steps_size())
                   ? scope.steps(static_cast<int>(input.step())).name()
                   : absl::StrCat("step ", input.step());
        break;
      case v1::Input::kParameter:
        text = absl::StrCat("$", input.parameter());
        break;
      case v1::Input::kLiteral:
        text = PayloadPreview(input.literal());
        break;
      case v1::Input::SOURCE_NOT_SET:
        text = "?";
        break;
    }
    return absl::StrCat(text, input.pointer(), input.optional() ? "?" : "");
  }

  static std::string Sources(const v1::Scope& scope, const v1::Step& step) {
    std::vector<std::string> parts;
    for (const v1::Input& input : step.inputs()) parts.push_back(Source(scope, input));
    for (const uint32_t after : step.after()) {
      v1::Input input;
      input.set_step(after);
      parts.push_back(absl::StrCat("after ", Source(scope, input)));
    }
    return absl::StrJoin(parts, ", ");
  }

  static void AddTask(const v1::TaskStep& task, std::vector<std::string>* parts) {
    parts->push_back(task.task());
    if (!task.queue().empty() && task.queue() != "default")
      parts->push_back(absl::StrCat("queue ", task.queue()));
    if (task.retry().max_attempts() != 0)
      parts->push_back(absl::StrCat(task.retry().max_attempts(), " attempts"));
    if (task.timeouts().start_to_close_ms() != 0) {
      parts->push_back(absl::StrCat(
          "timeout ", DurationText(absl::Milliseconds(task.timeouts().start_to_close_ms()))));
    }
    if (task.priority() != 0) parts->push_back(absl::StrCat("priority ", task.priority()));
    if (!task.limit_key_pointer().empty())
      parts->push_back(absl::StrCat("limited by ", task.limit_key_pointer()));
  }

  static std::string Detail(const v1::Step& step) {
    std::vector<std::string> parts;
    const auto ms = [](int64_t v) { return DurationText(absl::Milliseconds(v)); };
    switch (step.kind_case()) {
      case v1::Step::kTask:
        AddTask(step.task(), &parts);
        break;
      case v1::Step::kSleep:
        if (step.sleep().duration_ms() != 0) parts.push_back(ms(step.sleep().duration_ms()));
        break;
      case v1::Step::kMap:
        if (step.map().max_parallel() != 0)
          parts.push_back(absl::StrCat("at most ", step.map().max_parallel(), " in flight"));
        if (step.map().has_page_body()) parts.emplace_back("in pages");
        if (step.map().first() != 0)
          parts.push_back(absl::StrCat("done with the first ", step.map().first()));
        if (step.map().tolerated_failures() != 0)
          parts.push_back(absl::StrCat(step.map().tolerated_failures(), " may fail"));
        if (step.map().tolerated_failure_permille() != 0) {
          parts.push_back(
              absl::StrFormat("%.3g%% may fail", step.map().tolerated_failure_permille() / 10.0));
        }
        break;
      case v1::Step::kJoin:
        if (step.join().first() != 0)
          parts.push_back(absl::StrCat("done with the first ", step.join().first()));
        if (step.join().tolerated_failures() != 0)
          parts.push_back(absl::StrCat(step.join().tolerated_failures(), " may fail"));
        break;
      case v1::Step::kWaitEvent:
        parts.push_back(absl::StrCat("event ", step.wait_event().event(),
                                     step.wait_event().type().empty() ? "" : " of ",
                                     step.wait_event().type()));
        if (step.wait_event().timeout_ms() != 0)
          parts.push_back(absl::StrCat("timeout ", ms(step.wait_event().timeout_ms())));
        if (step.wait_event().has_default_value())
          parts.push_back(absl::StrCat("else ", PayloadPreview(step.wait_event().default_value())));
        break;
      case v1::Step::kLoop:
        if (step.loop().turns() != 0)
          parts.push_back(absl::StrCat("at most ", step.loop().turns(), " turns"));
        break;
      case v1::Step::kChild:
        parts.push_back(NameAndVersion(step.child().workflow(), step.child().version()));
        if (!step.child().workflow_id().empty())
          parts.push_back(absl::StrCat("as ", step.child().workflow_id()));
        if (step.child().id_input()) parts.emplace_back("the last input is its workflow id");
        if (step.child().detached()) parts.emplace_back("detached");
        if (step.child().parent_close() != v1::PARENT_CLOSE_POLICY_UNSPECIFIED) {
          parts.push_back(absl::StrCat(
              EnumName(*v1::ParentClosePolicy_descriptor(), step.child().parent_close()),
              " when its parent closes"));
        }
        break;
      case v1::Step::kEmit:
        parts.push_back(absl::StrCat("event ", step.emit().event()));
        if (step.emit().delay_ms() != 0)
          parts.push_back(absl::StrCat("after ", ms(step.emit().delay_ms())));
        break;
      case v1::Step::kFail:
        parts.push_back(FailureText(step.fail().failure()));
        break;
      default:
        break;
    }
    if (step.has_undo()) parts.push_back(absl::StrCat("undo ", step.undo().task().task()));
    if (step.on_exhausted() == v1::ON_EXHAUSTED_PARK) parts.emplace_back("parks when exhausted");
    return absl::StrJoin(parts, ", ");
  }

  const v1::Definition& definition_;
  const bool unicode_;
  Table* const table_;
  std::vector<bool> last_;
};

}  // namespace

std::string StatusName(v1::ExecutionStatus status) {
  return EnumName(*v1::ExecutionStatus_descriptor(), status);
}

Style StatusStyle(v1::ExecutionStatus status) {
  switch (status) {
    case v1::EXECUTION_STATUS_RUNNING:
      return Style::kBusy;
    case v1::EXECUTION_STATUS_COMPLETED:
      return Style::kGood;
    case v1::EXECUTION_STATUS_FAILED:
    case v1::EXECUTION_STATUS_TERMINATED:
      return Style::kBad;
    case v1::EXECUTION_STATUS_CANCELLED:
    case v1::EXECUTION_STATUS_SKIPPED:
      return Style::kDim;
    case v1::EXECUTION_STATUS_CANCELLING:
    case v1::EXECUTION_STATUS_FAILING:
    case v1::EXECUTION_STATUS_PAUSED:
      return Style::kWait;
    default:
      return Style::kPlain;
  }
}

std::string StateName(v1::StepState state) {
  if (state == v1::STEP_STATE_UNSPECIFIED) return "";
  std::string name = EnumName(*v1::StepState_descriptor(), state);
  std::replace(name.begin(), name.end(), '_', ' ');
  return name;
}

Style StateStyle(v1::StepState state) {
  switch (state) {
    case v1::STEP_STATE_RUNNING:
    case v1::STEP_STATE_SCHEDULED:
      return Style::kBusy;
    case v1::STEP_STATE_BACKING_OFF:
    case v1::STEP_STATE_WAITING:
    case v1::STEP_STATE_PARKED:
      return Style::kWait;
    case v1::STEP_STATE_COMPLETED:
      return Style::kGood;
    case v1::STEP_STATE_FAILED:
      return Style::kBad;
    default:
      return Style::kDim;
  }
}

bool IsOpen(v1::ExecutionStatus status) {
  switch (status) {
    case v1::EXECUTION_STATUS_RUNNING:
    case v1::EXECUTION_STATUS_CANCELLING:
    case v1::EXECUTION_STATUS_FAILING:
    case v1::EXECUTION_STATUS_PAUSED:
      return true;
    default:
      return false;
  }
}

bool IsFinished(v1::StepState state) {
  switch (state) {
    case v1::STEP_STATE_COMPLETED:
    case v1::STEP_STATE_FAILED:
    case v1::STEP_STATE_SKIPPED:
    case v1::STEP_STATE_CANCELLED:
      return true;
    default:
      return false;
  }
}

bool Succeeded(v1::ExecutionStatus status) {
  return status == v1::EXECUTION_STATUS_COMPLETED || status == v1::EXECUTION_STATUS_SKIPPED;
}

std::string FailureText(const v1::Failure& failure) {
  if (failure.type().empty()) return failure.message();
  return failure.message().empty() ? failure.type()
                                   : absl::StrCat(failure.type(), ": ", failure.message());
}

std::string MapText(const v1::StepInfo& step, uint32_t frames_max) {
  std::string text = absl::StrCat(step.items_done(), "/", step.items(), " done");
  if (step.items_failed() > 0) absl::StrAppend(&text, ", ", step.items_failed(), " failed");
  uint32_t in_flight = 0;
  for (const v1::FrameInfo& frame : step.frames()) {
    const bool open = std::any_of(frame.steps().begin(), frame.steps().end(),
                                  [](const v1::StepInfo& s) { return !IsFinished(s.state()); });
    if (open) ++in_flight;
  }
  if (in_flight > 0 && !IsFinished(step.state())) {
    absl::StrAppend(&text, ", ", in_flight, in_flight >= frames_max ? "+" : "", " in flight");
  }
  return text;
}

std::string StepDuration(const v1::StepInfo& step, absl::Time now) {
  if (step.scheduled_time_ms() == 0) return "";
  const int64_t end = step.end_time_ms() != 0    ? step.end_time_ms()
                      : IsFinished(step.state()) ? step.scheduled_time_ms()
                                                 : Millis(now);
  return DurationText(absl::Milliseconds(end - step.scheduled_time_ms()));
}

namespace {

// "a=b, c=d" by name.
std::string LabelsText(const google::protobuf::Map<std::string, std::string>& labels) {
  return absl::StrJoin(std::map<std::string, std::string>(labels.begin(), labels.end()), ", ",
                       absl::PairFormatter("="));
}

std::string StateDetail(const v1::StepInfo& step, absl::Time now) {
  std::vector<std::string> parts;
  switch (step.state()) {
    case v1::STEP_STATE_COMPLETED:
    case v1::STEP_STATE_SKIPPED:
      return step.state() == v1::STEP_STATE_SKIPPED ? step.reason() : "";
    case v1::STEP_STATE_FAILED:
    case v1::STEP_STATE_CANCELLED:
      return step.has_failure() ? FailureText(step.failure()) : step.reason();
    case v1::STEP_STATE_RUNNING:
      if (!step.worker().empty()) parts.push_back(absl::StrCat("on ", step.worker()));
      if (!step.reason().empty()) parts.push_back(step.reason());
      break;
    case v1::STEP_STATE_PENDING:
      parts.push_back(step.reason().empty() ? "waits for earlier steps" : step.reason());
      break;
    case v1::STEP_STATE_SCHEDULED:
      parts.push_back(!step.reason().empty() ? step.reason()
                      : step.queue().empty()
                          ? "waits for a worker"
                          : absl::StrCat("waits for a worker on queue ", step.queue()));
      break;
    default:
      if (!step.reason().empty()) parts.push_back(step.reason());
      break;
  }
  // Not every reason says when; the two that end by a timer always should.
  const bool timed =
      step.state() == v1::STEP_STATE_BACKING_OFF || step.state() == v1::STEP_STATE_WAITING;
  if (timed && step.next_time_ms() != 0) {
    const char* what = step.state() == v1::STEP_STATE_BACKING_OFF ? "next attempt" : "until";
    parts.push_back(step.next_time_ms() <= Millis(now)
                        ? absl::StrCat(what, " now")
                        : absl::StrCat(what, " in ", AgeText(step.next_time_ms(), now)));
  }
  if (step.has_failure()) {
    const std::string failure = FailureText(step.failure());
    const bool said = step.reason().find(failure) != std::string::npos;
    if (!said) parts.push_back(absl::StrCat("last failure: ", failure));
  }
  return absl::StrJoin(parts, "; ");
}

}  // namespace

std::string StepDetail(const v1::StepInfo& step, absl::Time now) {
  std::vector<std::string> parts;
  if (std::string detail = StateDetail(step, now); !detail.empty()) {
    parts.push_back(std::move(detail));
  }
  if (std::string labels = LabelsText(step.labels()); !labels.empty()) {
    parts.push_back(absl::StrCat("[", labels, "]"));
  }
  return absl::StrJoin(parts, " ");
}

Table ExecutionsTable(const google::protobuf::RepeatedPtrField<v1::ExecutionInfo>& executions,
                      absl::Time now) {
  Table table;
  table.columns = {{.header = "WORKFLOW ID"},
                   {.header = "WORKFLOW", .shrink = true},
                   {.header = "STATUS"},
                   {.header = "AGE", .right = true},
                   {.header = "DURATION", .right = true},
                   {.header = "STEPS", .right = true},
                   {.header = "FAILURE", .shrink = true},
                   {.header = "RUN ID", .shrink = true}};
  for (const v1::ExecutionInfo& e : executions) {
    const int64_t end = e.close_time_ms() != 0 ? e.close_time_ms() : Millis(now);
    table.rows.push_back(
        {Cell(e.workflow_id(), Style::kBold), Cell(NameAndVersion(e.workflow(), e.version())),
         Cell(StatusName(e.status()), StatusStyle(e.status())),
         Cell(AgeText(e.start_time_ms(), now)),
         Cell(e.start_time_ms() == 0 ? ""
                                     : DurationText(absl::Milliseconds(end - e.start_time_ms()))),
         Cell(absl::StrCat(e.steps_completed())), Cell(e.failure_type(), Style::kBad),
         Cell(e.run_id(), Style::kDim)});
  }
  return table;
}

Table CountTable(const v1::CountExecutionsResponse& response) {
  Table table;
  table.columns = {{.header = "STATUS"}, {.header = "COUNT", .right = true}};
  for (const auto& entry : response.by_status()) {
    table.rows.push_back({Cell(StatusName(entry.status()), StatusStyle(entry.status())),
                          Cell(absl::StrCat(entry.count()))});
  }
  table.rows.push_back(
      {Cell("total", Style::kBold), Cell(absl::StrCat(response.count()), Style::kBold)});
  return table;
}

Block ExecutionBlock(const v1::DescribeExecutionResponse& response, absl::Time now) {
  const v1::ExecutionInfo& info = response.info();
  const int64_t end = info.close_time_ms() != 0 ? info.close_time_ms() : Millis(now);
  std::string definition = NameAndVersion(info.workflow(), info.version());
  if (!info.definition_hash().empty())
    absl::StrAppend(&definition, " (", ShortHash(info.definition_hash()), ")");
  Block block = {
      {"Workflow ID", Cell(info.workflow_id(), Style::kBold)},
      {"Run ID", Cell(info.run_id())},
      {"Workflow", Cell(definition)},
      {"Namespace", Cell(info.namespace_() == "default" ? "" : info.namespace_())},
      {"Status", Cell(absl::StrCat(StatusName(info.status()), StatusNote(info.status())),
                      StatusStyle(info.status()))},
      {"Started", Cell(Ago(info.start_time_ms(), now))},
      {"Closed", Cell(Ago(info.close_time_ms(), now))},
      {"Duration", Cell(info.start_time_ms() == 0
                            ? ""
                            : DurationText(absl::Milliseconds(end - info.start_time_ms())))},
      {"Steps", Cell(absl::StrCat(info.steps_completed(), " completed, ", info.history_records(),
                                  " records"))},
      {"Labels", Cell(LabelsText(info.labels()))}};
  for (int i = 0; i < response.inputs_size(); ++i) {
    block.emplace_back(response.inputs_size() == 1 ? "Input" : absl::StrCat("Input ", i),
                       Cell(PayloadPreview(response.inputs(i))));
  }
  if (response.has_result() && response.result().encoding() != v1::ENCODING_UNSPECIFIED) {
    block.emplace_back("Result", Cell(PayloadPreview(response.result())));
  }
  if (response.has_failure())
    block.emplace_back("Failure", Cell(FailureText(response.failure()), Style::kBad));
  return block;
}

Table StepsTable(const v1::DescribeExecutionResponse& response, absl::Time now,
                 const StepsOptions& options) {
  Table table;
  table.columns = {{.header = "STEP", .shrink = true},
                   {.header = "KIND"},
                   {.header = "STATE"},
                   {.header = "ATTEMPT", .right = true},
                   {.header = "TIME", .right = true},
                   {.header = "DETAIL"}};
  StepTree(now, options, &table).Add(response.steps(), /*more_follow=*/false);
  return table;
}

Table HistoryTable(const google::protobuf::RepeatedPtrField<v1::HistoryEvent>& events,
                   const HistoryOptions& options) {
  Table table;
  table.columns = {{.header = "TIME", .right = !options.absolute},
                   {.header = "#", .right = true},
                   {.header = "TYPE"},
                   {.header = "STEP", .shrink = true},
                   {.header = "DETAIL"}};
  // Pages come one by one: room for the times and numbers of the later ones.
  table.widths = {7, 4};
  for (const v1::HistoryEvent& event : events) {
    const std::string time =
        options.absolute
            ? TimeText(event.time_ms())
            : absl::StrCat("+",
                           DurationText(absl::Milliseconds(event.time_ms() - options.origin_ms)));
    std::vector<std::string> detail;
    if (event.attempt() != 0) detail.push_back(absl::StrCat("attempt ", event.attempt()));
    if (!event.detail().empty()) detail.push_back(event.detail());
    if (event.has_failure()) {
      const std::string failure = FailureText(event.failure());
      if (event.detail().find(failure) == std::string::npos) detail.push_back(failure);
    }
    if (!event.identity().empty()) detail.push_back(absl::StrCat("by ", event.identity()));
    if (options.payloads && event.has_payload())
      detail.push_back(absl::StrCat("= ", PayloadPreview(event.payload())));
    const bool bad = event.has_failure();
    table.rows.push_back(
        {Cell(time),
         Cell(absl::StrCat(event.ordinal()), event.derived() ? Style::kDim : Style::kPlain),
         Cell(event.type(), bad               ? Style::kBad
                            : event.derived() ? Style::kDim
                                              : Style::kPlain),
         Cell(event.step()), Cell(absl::StrJoin(detail, "; "))});
  }
  return table;
}

Table EventsTable(const google::protobuf::RepeatedPtrField<v1::EventInfo>& events, absl::Time now,
                  bool payloads) {
  Table table;
  table.columns = {{.header = "#", .right = true},
                   {.header = "EVENT"},
                   {.header = "EVENT ID", .shrink = true},
                   {.header = "AGE", .right = true},
                   {.header = "STATE"}};
  if (payloads) table.columns.push_back({.header = "PAYLOAD", .shrink = true});
  for (const v1::EventInfo& event : events) {
    std::string state;
    Style style = Style::kWait;
    if (!event.delivered()) {
      state = event.deliver_time_ms() <= Millis(now)
                  ? "due now"
                  : absl::StrCat("due in ", AgeText(event.deliver_time_ms(), now));
    } else if (event.readers() == 0) {
      state = "nobody has read it yet";
    } else {
      state = absl::StrCat("read by ", event.readers(), event.readers() == 1 ? " step" : " steps");
      style = Style::kGood;
    }
    table.rows.push_back({Cell(absl::StrCat(event.number()), Style::kDim),
                          Cell(event.event(), Style::kBold), Cell(event.event_id()),
                          Cell(AgeText(event.time_ms(), now)), Cell(state, style)});
    if (payloads) table.rows.back().push_back(Cell(PayloadPreview(event.payload())));
  }
  return table;
}

Table WorkersTable(const google::protobuf::RepeatedPtrField<v1::WorkerInfo>& workers,
                   absl::Time now) {
  Table table;
  table.columns = {{.header = "WORKER"},
                   {.header = "QUEUE"},
                   {.header = "STATE"},
                   {.header = "RUNNING", .right = true},
                   {.header = "CREDIT", .right = true},
                   {.header = "DONE", .right = true},
                   {.header = "FAILED", .right = true},
                   {.header = "UP", .right = true},
                   {.header = "SEEN", .right = true},
                   {.header = "PEER", .shrink = true},
                   {.header = "TASKS", .shrink = true}};
  for (const v1::WorkerInfo& w : workers) {
    const Style style = w.state() == "connected" ? Style::kGood : Style::kWait;
    table.rows.push_back({Cell(w.worker_id(), Style::kBold), Cell(w.queue()),
                          Cell(w.state(), style), Cell(absl::StrCat(w.running(), "/", w.slots())),
                          Cell(absl::StrCat(w.credit())), Cell(absl::StrCat(w.completed())),
                          Cell(absl::StrCat(w.failed())), Cell(AgeText(w.connected_time_ms(), now)),
                          Cell(AgeText(w.last_seen_time_ms(), now)), Cell(w.peer()),
                          Cell(JoinSome(w.tasks()))});
  }
  return table;
}

Table QueuesTable(const google::protobuf::RepeatedPtrField<v1::TaskQueueInfo>& queues,
                  absl::Time now) {
  Table table;
  table.columns = {{.header = "QUEUE"},
                   {.header = "READY", .right = true},
                   {.header = "RUNNING", .right = true},
                   {.header = "WORKERS", .right = true},
                   {.header = "SLOTS", .right = true},
                   {.header = "CREDIT", .right = true},
                   {.header = "OLDEST", .right = true},
                   {.header = "SPILLED", .right = true}};
  for (const v1::TaskQueueInfo& q : queues) {
    const bool starved = q.ready() > 0 && q.workers() == 0;
    table.rows.push_back({Cell(q.name(), Style::kBold),
                          Cell(absl::StrCat(q.ready()), starved ? Style::kBad : Style::kPlain),
                          Cell(absl::StrCat(q.running())),
                          Cell(absl::StrCat(q.workers()), starved ? Style::kBad : Style::kPlain),
                          Cell(absl::StrCat(q.slots())), Cell(absl::StrCat(q.credit())),
                          Cell(AgeText(q.oldest_ready_time_ms(), now)),
                          Cell(absl::StrCat(q.executions_spilled()))});
  }
  return table;
}

Block QueueBlock(const v1::TaskQueueInfo& q, absl::Time now) {
  return {
      {"Queue", Cell(q.name(), Style::kBold)},
      {"Ready", Cell(absl::StrCat(q.ready(), q.ready() > 0 && q.workers() == 0
                                                 ? " (no worker takes from this queue)"
                                                 : ""))},
      {"Running", Cell(absl::StrCat(q.running()))},
      {"Workers",
       Cell(absl::StrCat(q.workers(), " with ", q.slots(), " slots, ", q.credit(), " free"))},
      {"Oldest ready",
       Cell(q.oldest_ready_time_ms() == 0 ? "" : AgeText(q.oldest_ready_time_ms(), now))},
      {"Spilled", Cell(q.executions_spilled() == 0
                           ? ""
                           : absl::StrCat(q.executions_spilled(), " executions on disk only"))}};
}

Table QueueTasksTable(const v1::TaskQueueInfo& queue) {
  Table table;
  table.columns = {{.header = "TASK"},
                   {.header = "READY", .right = true},
                   {.header = "RUNNING", .right = true},
                   {.header = "WORKERS", .right = true},
                   {.header = "NOTE"}};
  for (const v1::TaskInfo& task : queue.tasks()) {
    const bool orphan = task.workers() == 0;
    table.rows.push_back({Cell(task.name(), Style::kBold), Cell(absl::StrCat(task.ready())),
                          Cell(absl::StrCat(task.running())),
                          Cell(absl::StrCat(task.workers()), orphan ? Style::kBad : Style::kPlain),
                          Cell(orphan ? "no worker has this task" : "", Style::kBad)});
  }
  return table;
}

Table DefinitionsTable(const google::protobuf::RepeatedPtrField<v1::DefinitionSummary>& definitions,
                       absl::Time now) {
  Table table;
  table.columns = {{.header = "NAME"},
                   {.header = "VERSION"},
                   {.header = "HASH"},
                   {.header = "STEPS", .right = true},
                   {.header = "AGE", .right = true},
                   {.header = "SIGNATURE", .shrink = true},
                   {.header = "TASKS", .shrink = true}};
  for (const v1::DefinitionSummary& d : definitions) {
    table.rows.push_back({Cell(d.name(), Style::kBold), Cell(d.version()),
                          Cell(ShortHash(d.definition_hash()), Style::kDim),
                          Cell(absl::StrCat(d.steps())), Cell(AgeText(d.created_time_ms(), now)),
                          Cell(d.result_type().empty() && d.parameter_types().empty()
                                   ? ""
                                   : absl::StrCat(d.result_type(), "(",
                                                  absl::StrJoin(d.parameter_types(), ", "), ")")),
                          Cell(JoinSome(d.tasks()))});
  }
  return table;
}

Block DefinitionBlock(const v1::GetDefinitionResponse& response, absl::Time now) {
  const v1::Definition& d = response.definition();
  return {{"Workflow", Cell(d.name(), Style::kBold)},
          {"Version", Cell(d.version())},
          {"Hash", Cell(absl::BytesToHexString(response.summary().definition_hash()))},
          {"Description", Cell(d.description())},
          {"Created", Cell(Ago(response.summary().created_time_ms(), now))},
          {"Parameters", Cell(absl::StrJoin(d.parameter_types(), ", "))},
          {"Result", Cell(d.result_type())},
          {"Timeout", Cell(d.execution_timeout_ms() == 0
                               ? ""
                               : DurationText(absl::Milliseconds(d.execution_timeout_ms())))}};
}

Table DefinitionTable(const v1::Definition& definition, bool unicode) {
  Table table;
  table.columns = {{.header = "STEP", .shrink = true},
                   {.header = "KIND"},
                   {.header = "INPUTS", .shrink = true},
                   {.header = "DETAIL"}};
  DefinitionTree(definition, unicode, &table).AddScope(0);
  return table;
}

Block ServerBlock(const v1::GetServerInfoResponse& info, absl::Time now) {
  return {{"Version", Cell(info.version())},
          {"Up", Cell(info.start_time_ms() == 0 ? "" : AgeText(info.start_time_ms(), now))},
          {"State", info.degraded()
                        ? Cell(absl::StrCat("degraded: ", info.degraded_reason()), Style::kBad)
                        : Cell("serving", Style::kGood)},
          {"Data directory", Cell(info.data_directory())},
          {"Shards", Cell(absl::StrCat(info.shards()))},
          {"Incarnation", Cell(absl::StrCat(info.incarnation()))},
          {"Executions", Cell(absl::StrCat(info.executions_open(), " open, ",
                                           info.executions_resident(), " in memory"))},
          {"Tasks",
           Cell(absl::StrCat(info.tasks_ready(), " ready, ", info.tasks_running(), " running"))},
          {"Memory", Cell(BytesText(info.resident_bytes()))},
          {"CPU", Cell(absl::StrFormat("%.1fs", info.cpu_seconds()))}};
}

Table CountersTable(const v1::GetServerInfoResponse& info) {
  Table table;
  table.columns = {{.header = "COUNTER"}, {.header = "VALUE", .right = true}};
  for (const auto& [name, value] :
       std::map<std::string, uint64_t>(info.counters().begin(), info.counters().end())) {
    table.rows.push_back({Cell(name), Cell(absl::StrCat(value))});
  }
  return table;
}

}  // namespace flux::ctl
