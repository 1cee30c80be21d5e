#include "flux/inline_runner.h"

#include <algorithm>
#include <exception>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "flux/v1/definition.pb.h"
#include "proto/bridge.h"

namespace flux {
namespace {

// The server's default (RetryPolicy.max_attempts).
constexpr uint32_t kMaxAttemptsDefault = 5;

Payload FromProto(const v1::Payload& proto) {
  Payload payload;
  payload.data = proto.data();
  payload.encoding = static_cast<Encoding>(proto.encoding());
  payload.content_type = proto.content_type();
  payload.metadata.insert(proto.metadata().begin(), proto.metadata().end());
  return payload;
}

Payload NoValue() {
  Payload payload;
  payload.encoding = Encoding::kNone;
  return payload;
}

// How a step or a body ended: a value, skipped, or failed. Payloads are shared: a value may be read
// by many.
struct Ended {
  std::shared_ptr<const Payload> value;  // null: skipped or failed
  std::optional<Failure> failure;

  bool skipped() const { return value == nullptr && !failure; }
  static Ended Value(Payload payload) {
    return {std::make_shared<const Payload>(std::move(payload)), std::nullopt};
  }
  static Ended Skipped() { return {}; }
  static Ended Failed(const absl::Status& status) { return {nullptr, FailureOf(status)}; }
};

bool Contains(const google::protobuf::RepeatedPtrField<std::string>& types,
              const std::string& type) {
  return std::find(types.begin(), types.end(), type) != types.end();
}

absl::StatusOr<bool> EqualJson(const Payload& value, const std::string& match) {
  FLUX_ASSIGN_OR_RETURN(std::string text, internal::ToJsonText(value));
  FLUX_ASSIGN_OR_RETURN(internal::JsonDocument document, internal::JsonDocument::Parse(text));
  FLUX_ASSIGN_OR_RETURN(internal::JsonDocument other, internal::JsonDocument::Parse(match));
  return document.root() == other.root();
}

class InlineContext final : public TaskContext {
 public:
  InlineContext(uint32_t attempt, std::string workflow_id, std::string run_id, std::string step,
                std::string token, Payload* progress)
      : attempt_(attempt),
        workflow_id_(std::move(workflow_id)),
        run_id_(std::move(run_id)),
        step_(std::move(step)),
        token_(std::move(token)),
        progress_(progress),
        last_progress_(*progress) {}

  uint32_t attempt() const override { return attempt_; }
  std::string workflow_id() const override { return workflow_id_; }
  std::string run_id() const override { return run_id_; }
  std::string step() const override { return step_; }
  std::string fencing_token() const override { return token_; }
  bool cancelled() const override { return false; }
  absl::Time deadline() const override { return absl::InfiniteFuture(); }

 protected:
  void HeartbeatPayload(Payload progress) override {
    if (progress.encoding != Encoding::kUnspecified) *progress_ = std::move(progress);
  }
  Payload LastProgressPayload() const override { return last_progress_; }

 private:
  uint32_t attempt_;
  std::string workflow_id_, run_id_, step_, token_;
  Payload* progress_;  // handed from attempt to attempt
  Payload last_progress_;
};

}  // namespace

// One execution: an interpreter of the definition. Each body is a frame; steps run in order, so
// that everything a step reads has ended when its turn comes.
class InlineExecution {
 public:
  InlineExecution(InlineRunner* runner, const internal::WorkflowSpec& spec, std::string workflow_id,
                  int depth)
      : runner_(runner), spec_(spec), workflow_id_(std::move(workflow_id)), depth_(depth) {}

  // InvalidArgument: the workflow cannot be traced.
  absl::StatusOr<Ended> Run(std::vector<Payload> inputs) {
    const absl::StatusOr<internal::Traced>& traced = internal::TraceOnce(spec_);
    if (!traced.ok()) return traced.status();
    traced_ = &*traced;
    if (!definition_.ParseFromString(traced->definition_bytes)) {
      return absl::InternalError("a traced definition does not parse");
    }
    run_id_ = absl::StrCat("inline-", ++runner_->runs_);
    std::vector<Ended> parameters;
    for (Payload& input : inputs) parameters.push_back(Ended::Value(std::move(input)));
    Ended ended = RunScope(0, std::move(parameters), "");
    if (ended.failure) Undo(&*ended.failure);
    return ended;
  }

 private:
  struct Frame {
    std::vector<Ended> parameters;
    std::vector<Ended> steps;
    std::string path;  // "map[3]/", before the names of its steps
  };
  struct Undoable {
    const v1::TaskStep* task;
    std::string step;
    std::vector<Payload> inputs;
  };

  Ended RunScope(uint32_t index, std::vector<Ended> parameters, std::string path) {
    const v1::Scope& scope = definition_.scopes(static_cast<int>(index));
    Frame frame{std::move(parameters), {}, std::move(path)};
    Ended ended = RunSteps(scope, &frame);
    if (ended.failure || !scope.has_result()) return ended;
    return Read(frame, scope.result());
  }

  // The value JSON null, or the failure of the first step that fails.
  Ended RunSteps(const v1::Scope& scope, Frame* frame) {
    for (const v1::Step& step : scope.steps()) {
      Ended ended = RunStep(step, *frame);
      if (ended.failure) ended = HandleFailure(step, *frame, *std::move(ended.failure));
      if (ended.failure) return ended;
      frame->steps.push_back(std::move(ended));
    }
    return Ended::Value(internal::JsonPayload("null"));
  }

  Ended HandleFailure(const v1::Step& step, const Frame& frame, Failure failure) {
    for (const v1::CatchClause& clause : step.catches()) {
      if (!clause.types().empty() && !Contains(clause.types(), failure.type)) continue;
      absl::StatusOr<Payload> payload = Encode(failure);
      if (!payload.ok()) return Ended::Failed(payload.status());
      std::vector<Ended> parameters = {Ended::Value(*std::move(payload))};
      for (const v1::Input& capture : clause.captures()) {
        parameters.push_back(Read(frame, capture));
      }
      return RunBody(clause.body(), std::move(parameters), frame, absl::StrCat(step.name(), "!"));
    }
    return {nullptr, std::move(failure)};
  }

  Ended RunBody(uint32_t body, std::vector<Ended> parameters, const Frame& frame,
                const std::string& name) {
    for (const Ended& parameter : parameters) {
      if (parameter.failure) return parameter;
    }
    return RunScope(body, std::move(parameters), absl::StrCat(frame.path, name, "/"));
  }

  Ended Source(const Frame& frame, const v1::Input& input) {
    switch (input.source_case()) {
      case v1::Input::kStep:
        return frame.steps[input.step()];
      case v1::Input::kParameter:
        return frame.parameters[input.parameter()];
      case v1::Input::kLiteral:
      case v1::Input::SOURCE_NOT_SET:
        break;
    }
    return Ended::Value(FromProto(input.literal()));
  }

  Ended Read(const Frame& frame, const v1::Input& input) {
    Ended source = Source(frame, input);
    if (source.skipped()) return input.optional() ? Ended::Value(NoValue()) : source;
    if (input.pointer().empty()) return source;
    absl::StatusOr<Payload> part = internal::Project(*source.value, input.pointer());
    if (part.ok()) return Ended::Value(*std::move(part));
    return Ended::Failed(errors::kBadProjection(std::string(Message(part.status()))));
  }

  bool SkippedByInputs(const v1::Step& step, const Frame& frame) {
    if (step.has_block()) return false;  // its inputs are captures, and lazy
    const int count = step.has_switch_() ? 1 : step.inputs_size();
    int skipped = 0;
    for (int i = 0; i < count; ++i) {
      if (!Source(frame, step.inputs(i)).skipped()) continue;
      if (!step.inputs(i).optional()) return true;
      ++skipped;
    }
    return count > 0 && skipped == count;
  }

  Ended RunStep(const v1::Step& step, const Frame& frame) {
    if (SkippedByInputs(step, frame)) return Ended::Skipped();
    std::vector<Ended> inputs;
    for (const v1::Input& input : step.inputs()) {
      inputs.push_back(Read(frame, input));
      if (inputs.back().failure) return inputs.back();
    }
    switch (step.kind_case()) {
      case v1::Step::kTask:
        return RunTaskStep(step, frame, inputs);
      case v1::Step::kSleep:
        return Ended::Value(internal::JsonPayload("null"));
      case v1::Step::kMap:
        return RunMap(step, frame, inputs);
      case v1::Step::kWaitEvent:
        return RunWaitEvent(step.wait_event());
      case v1::Step::kSwitch:
        return RunSwitch(step, frame, std::move(inputs));
      case v1::Step::kLoop:
        return RunLoop(step, frame, std::move(inputs));
      case v1::Step::kBlock:
        return RunBody(step.block().body(), std::move(inputs), frame, step.name());
      case v1::Step::kJoin:
        return RunJoin(step, frame, inputs);
      case v1::Step::kChild:
        return RunChild(step, inputs);
      case v1::Step::kEmit:
        return RunEmit(step.emit(), inputs);
      case v1::Step::kFail: {
        Failure failure;
        failure.type = step.fail().failure().type();
        failure.message = step.fail().failure().message();
        failure.non_retriable = true;
        failure.source = step.name();
        return {nullptr, std::move(failure)};
      }
      case v1::Step::kSkip:
      case v1::Step::KIND_NOT_SET:
        break;
    }
    return Ended::Skipped();
  }

  Ended RunTaskStep(const v1::Step& step, const Frame& frame, const std::vector<Ended>& inputs) {
    std::vector<Payload> payloads;
    for (const Ended& input : inputs) payloads.push_back(*input.value);
    const std::string path = absl::StrCat(frame.path, step.name());
    Ended ended = RunTask(step.task(), path, payloads);
    if (ended.failure && step.on_exhausted() == v1::ON_EXHAUSTED_PARK) {
      ended.failure->message += " (on a server the step would now be parked for an operator)";
    }
    if (ended.value != nullptr && step.has_undo()) {
      payloads.push_back(*ended.value);
      undo_.push_back({&step.undo().task(), absl::StrCat(path, "~"), std::move(payloads)});
    }
    return ended;
  }

  Ended RunTask(const v1::TaskStep& task, const std::string& path,
                const std::vector<Payload>& inputs) {
    const internal::TaskHandler* handler = runner_->tasks_->Find(task.task());
    if (handler == nullptr) {
      return Ended::Failed(errors::kUnknownTask(absl::StrCat(
          "no function is registered for task ", task.task(), "; TaskSet::Register it")));
    }
    const uint32_t given = task.retry().max_attempts();
    const uint32_t attempts_max = given == 0 ? kMaxAttemptsDefault : given;
    Payload progress;
    for (uint32_t attempt = 1;; ++attempt) {
      InlineContext context(attempt, workflow_id_, run_id_, path,
                            absl::StrCat(run_id_, ".", ++deliveries_), &progress);
      internal::RawOutcome outcome = CallGuarded(*handler, context, inputs);
      const bool failed = outcome.kind == internal::RawOutcome::Kind::kFailure;
      runner_->attempts_.push_back(
          {path, task.task(), attempt, failed ? outcome.failure.type : std::string()});
      if (outcome.kind == internal::RawOutcome::Kind::kSkip) return Ended::Skipped();
      if (!failed) return Ended::Value(std::move(outcome.value));
      if (outcome.failure.non_retriable || attempt >= attempts_max ||
          Contains(task.non_retriable(), outcome.failure.type)) {
        return {nullptr, std::move(outcome.failure)};
      }
    }
  }

  // The boundary where exceptions of user code end.
  static internal::RawOutcome CallGuarded(const internal::TaskHandler& handler,
                                          TaskContext& context,
                                          const std::vector<Payload>& inputs) {
    try {
      return handler(context, inputs);
    } catch (const std::exception& error) {
      return internal::RawOutcome::Fail(errors::kException(error.what()));
    } catch (...) {
      return internal::RawOutcome::Fail(
          errors::kException("an exception that is not a std::exception"));
    }
  }

  Ended RunMap(const v1::Step& step, const Frame& frame, const std::vector<Ended>& inputs) {
    absl::StatusOr<std::vector<Payload>> items = internal::SplitList(*inputs[0].value);
    if (!items.ok()) {
      return Ended::Failed(errors::kBadProjection(
          absl::StrCat("the list to map over cannot be read: ", items.status().message())));
    }
    internal::ListWriter list;
    for (size_t i = 0; i < items->size(); ++i) {
      std::vector<Ended> parameters = inputs;
      parameters[0] = Ended::Value(std::move((*items)[i]));
      Ended item = RunBody(step.map().body(), std::move(parameters), frame,
                           absl::StrCat(step.name(), "[", i, "]"));
      if (item.failure) return item;
      if (!item.skipped()) list.Add(*item.value);
    }
    return Ended::Value(std::move(list).Finish());
  }

  Ended RunJoin(const v1::Step& step, const Frame& frame, const std::vector<Ended>& inputs) {
    internal::ListWriter list;
    for (size_t i = 0; i < inputs.size(); ++i) {
      if (Source(frame, step.inputs(static_cast<int>(i))).skipped()) continue;
      list.Add(*inputs[i].value);
    }
    return Ended::Value(std::move(list).Finish());
  }

  Ended RunSwitch(const v1::Step& step, const Frame& frame, std::vector<Ended> inputs) {
    const std::shared_ptr<const Payload> condition = inputs[0].value;
    inputs.erase(inputs.begin());
    for (const v1::SwitchStep::Case& one : step.switch_().cases()) {
      absl::StatusOr<bool> equal = EqualJson(*condition, one.match().data());
      if (!equal.ok()) {
        return Ended::Failed(errors::kBadProjection(
            absl::StrCat("its condition cannot be read: ", equal.status().message())));
      }
      if (*equal) return RunBody(one.body(), std::move(inputs), frame, step.name());
    }
    if (!step.switch_().has_default_body()) return Ended::Skipped();
    return RunBody(step.switch_().default_body(), std::move(inputs), frame, step.name());
  }

  Ended RunLoop(const v1::Step& step, const Frame& frame, std::vector<Ended> inputs) {
    const v1::LoopStep& loop = step.loop();
    const v1::Scope& body = definition_.scopes(static_cast<int>(loop.body()));
    for (uint64_t turn = 0;; ++turn) {
      Frame inner{inputs, {}, absl::StrCat(frame.path, step.name(), "[", turn, "]/")};
      Ended ran = RunSteps(body, &inner);
      if (ran.failure) return ran;
      Ended next = Read(inner, body.result());
      if (next.failure || next.skipped()) return next;
      inputs[0] = next;
      bool done = loop.turns() != 0 && turn + 1 >= loop.turns();
      if (loop.has_done()) {
        Ended condition = Read(inner, loop.done());
        if (condition.failure || condition.skipped()) return condition;
        absl::StatusOr<bool> equal = EqualJson(*condition.value, "true");
        if (!equal.ok()) {
          return Ended::Failed(errors::kBadProjection(
              absl::StrCat("its condition cannot be read: ", equal.status().message())));
        }
        done = done || *equal;
      }
      if (done) return next;
    }
  }

  Ended RunWaitEvent(const v1::WaitEventStep& wait) {
    std::deque<Payload>& told = runner_->events_[wait.event()];
    if (!told.empty()) {
      Payload value = std::move(told.front());
      told.pop_front();
      return Ended::Value(std::move(value));
    }
    if (wait.has_default_value()) return Ended::Value(FromProto(wait.default_value()));
    return Ended::Failed(errors::kEventTimeout(
        absl::StrCat("nobody told the event ", wait.event(), "; InlineRunner::Tell it first")));
  }

  Ended RunEmit(const v1::EmitStep& emit, const std::vector<Ended>& inputs) {
    absl::StatusOr<std::string> target = Decode<std::string>(*inputs[1].value);
    if (!target.ok()) return Ended::Failed(target.status());
    if (*target == workflow_id_) runner_->events_[emit.event()].push_back(*inputs[0].value);
    runner_->emissions_.push_back({*std::move(target), emit.event(), *inputs[0].value});
    return Ended::Value(internal::JsonPayload("null"));
  }

  Ended RunChild(const v1::Step& step, const std::vector<Ended>& inputs) {
    const v1::ChildStep& child = step.child();
    const internal::WorkflowSpec* spec = &spec_;
    for (const internal::WorkflowSpec& known : traced_->children) {
      if (known.name == child.workflow()) spec = &known;
    }
    if (depth_ >= InlineRunner::kChildDepthMax) {
      return Ended::Failed(absl::ResourceExhaustedError(absl::StrCat(
          "children are nested deeper than ", InlineRunner::kChildDepthMax, " executions")));
    }
    std::vector<Payload> payloads;
    for (const Ended& input : inputs) payloads.push_back(*input.value);
    const std::string id = child.workflow_id().empty()
                               ? absl::StrCat(workflow_id_, "/", step.name())
                               : child.workflow_id();
    absl::StatusOr<Ended> ended =
        InlineExecution(runner_, *spec, id, depth_ + 1).Run(std::move(payloads));
    if (child.detached()) return Ended::Value(internal::JsonPayload("null"));
    return ended.ok() ? *std::move(ended) : Ended::Failed(ended.status());
  }

  void Undo(Failure* failure) {
    for (auto undo = undo_.rbegin(); undo != undo_.rend(); ++undo) {
      Ended ended = RunTask(*undo->task, undo->step, undo->inputs);
      if (!ended.failure) continue;
      failure->message +=
          absl::StrCat(" (and undoing ", undo->step, " failed: ", ended.failure->type, ": ",
                       ended.failure->message, ")");
    }
  }

  InlineRunner* runner_;
  internal::WorkflowSpec spec_;
  std::string workflow_id_;
  int depth_;
  const internal::Traced* traced_ = nullptr;  // owned by the memo of traces
  v1::Definition definition_;
  std::string run_id_;
  uint64_t deliveries_ = 0;
  std::vector<Undoable> undo_;  // completed steps, oldest first
};

absl::StatusOr<internal::RawOutcome> InlineRunner::RunRaw(const internal::WorkflowSpec& workflow,
                                                          std::vector<Payload> inputs) {
  FLUX_RETURN_IF_ERROR(status_);
  FLUX_RETURN_IF_ERROR(tasks_->status());
  InlineExecution execution(this, workflow, "inline", 0);
  FLUX_ASSIGN_OR_RETURN(Ended ended, execution.Run(std::move(inputs)));
  if (ended.failure) return internal::RawOutcome::Fail(*std::move(ended.failure));
  if (ended.skipped()) return internal::RawOutcome::Skipped();
  return internal::RawOutcome::Value(*ended.value);
}

}  // namespace flux
