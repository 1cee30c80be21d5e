#include "client/src/simulation.h"

#include <algorithm>
#include <charconv>
#include <exception>
#include <mutex>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "flux/codec.h"
#include "flux/task_context.h"
#include "proto/bridge.h"

namespace flux::internal {
namespace {

// The server's defaults (RetryPolicy, TaskTimeouts).
constexpr uint32_t kMaxAttemptsDefault = 5;
constexpr int64_t kInitialBackoffMsDefault = 1'000;
constexpr int64_t kFactorPermilleDefault = 2'000;
constexpr int64_t kMaxBackoffMsDefault = 60'000;
constexpr int64_t kStartToCloseMsDefault = 300'000;
constexpr size_t kStuckLinesMax = 20;
constexpr char kCoordinator[] = "coordinator";

template <typename T>
T Or(T value, T otherwise) {
  return value == 0 ? otherwise : value;
}

// The gap before the attempt after `attempt`, without its jitter.
absl::Duration Backoff(const v1::RetryPolicy& policy, uint32_t attempt) {
  const int64_t cap = Or(policy.max_backoff_ms(), kMaxBackoffMsDefault);
  const int64_t factor = Or(static_cast<int64_t>(policy.factor_permille()), kFactorPermilleDefault);
  int64_t gap = std::min(Or(policy.initial_backoff_ms(), kInitialBackoffMsDefault), cap);
  if (factor <= 1000) return absl::Milliseconds(gap);
  for (uint32_t i = 1; i < attempt && gap < cap; ++i) {
    // One too small to grow by whole milliseconds grows by one.
    gap = std::max(std::min(gap * factor / 1000, cap), std::min(gap + 1, cap));
  }
  return absl::Milliseconds(gap);
}

class SimContext final : public TaskContext {
 public:
  SimContext(const TaskRun& run, const SimExecution& execution, std::string token)
      : run_(run), execution_(execution), token_(std::move(token)), progress_(run.progress) {}

  uint32_t attempt() const override { return run_.attempt; }
  std::string workflow_id() const override { return execution_.workflow_id(); }
  std::string run_id() const override { return execution_.run_id(); }
  std::string step() const override { return run_.path; }
  std::string fencing_token() const override { return token_; }
  bool cancelled() const override { return false; }
  absl::Time deadline() const override { return absl::InfiniteFuture(); }

  // Of this attempt's last heartbeat, or else what it was given.
  Payload TakeProgress() { return std::move(progress_); }
  std::map<std::string, std::string> TakeLabels() { return std::move(labels_); }
  std::map<std::string, std::string> TakeStepLabels() { return std::move(step_labels_); }

 protected:
  void HeartbeatPayload(Payload progress) override {
    std::lock_guard lock(mutex_);
    if (progress.encoding != Encoding::kUnspecified) progress_ = std::move(progress);
  }
  Payload LastProgressPayload() const override { return run_.progress; }
  void LabelText(std::string key, std::string value) override {
    std::lock_guard lock(mutex_);
    labels_[std::move(key)] = std::move(value);
  }
  void StepLabelText(std::string key, std::string value) override {
    std::lock_guard lock(mutex_);
    if (value.empty()) {
      step_labels_.erase(key);
    } else {
      step_labels_[std::move(key)] = std::move(value);
    }
  }

 private:
  const TaskRun& run_;
  const SimExecution& execution_;
  const std::string token_;
  std::mutex mutex_;  // the function may share its context with threads of its own
  Payload progress_;
  std::map<std::string, std::string> labels_;
  std::map<std::string, std::string> step_labels_;
};

// The boundary where exceptions of user code end.
RawOutcome CallGuarded(const TaskHandler& handler, TaskContext& context,
                       const std::vector<Payload>& inputs) {
  try {
    return handler(context, inputs);
  } catch (const std::exception& error) {
    return RawOutcome::Fail(errors::kException(error.what()));
  } catch (...) {
    return RawOutcome::Fail(errors::kException("an exception that is not a std::exception"));
  }
}

bool IsRetriable(const v1::TaskStep& task, const Failure& failure) {
  const auto& types = task.non_retriable();
  return !failure.non_retriable &&
         std::find(types.begin(), types.end(), failure.type) == types.end();
}

// Of an attempt that a coordinator ends.
Failure TimedOut(const ErrorType& type, std::string message) {
  Failure failure = OwnFailure(type, std::move(message));
  failure.non_retriable = false;
  return failure;
}

template <typename T>
void AddDistinct(std::vector<T>* to, const T& value) {
  if (std::find(to->begin(), to->end(), value) == to->end()) to->push_back(value);
}

}  // namespace

Failure OwnFailure(const ErrorType& type, std::string message) {
  return {.type = std::string(type.name()),
          .message = std::move(message),
          .non_retriable = true,
          .source = kCoordinator};
}

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

Position Extended(Position position, uint64_t item) {
  position.push_back(item);
  return position;
}

namespace {

absl::StatusOr<JsonDocument> ParseJson(const Payload& payload) {
  if (payload.encoding == Encoding::kNone) return JsonDocument::Parse("null");
  if (payload.encoding != Encoding::kJson) return WrongEncoding(payload, "JSON");
  return JsonDocument::Parse(payload.data);
}

}  // namespace

absl::StatusOr<bool> EqualJson(const Payload& value, const std::string& match) {
  FLUX_ASSIGN_OR_RETURN(JsonDocument document, ParseJson(value));
  FLUX_ASSIGN_OR_RETURN(JsonDocument other, JsonDocument::Parse(match));
  return document.root() == other.root();
}

absl::StatusOr<Payload> ProjectStrictly(const Payload& payload, const std::string& pointer) {
  if (payload.encoding == Encoding::kNone || pointer.empty()) return payload;
  FLUX_ASSIGN_OR_RETURN(JsonDocument document, ParseJson(payload));
  const nlohmann::json::json_pointer path(pointer);  // one that the tracer wrote
  if (!document.root().contains(path)) {
    return absl::InvalidArgumentError(
        absl::StrCat("the JSON pointer \"", pointer, "\" leads nowhere"));
  }
  return JsonPayload(document.root()[path].dump());
}

absl::StatusOr<int64_t> WholeNumber(const Payload& payload) {
  FLUX_ASSIGN_OR_RETURN(JsonDocument document, ParseJson(payload));
  const std::string text = document.root().dump();
  int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error == std::errc() && end == text.data() + text.size() && number >= 0) return number;
  return absl::InvalidArgumentError(
      absl::StrCat("expected a whole number of at least 0, got ", text));
}

absl::StatusOr<std::shared_ptr<const Program>> Program::Of(const WorkflowSpec& workflow) {
  const absl::StatusOr<Traced>& traced = TraceOnce(workflow);
  if (!traced.ok()) return traced.status();
  std::vector<WorkflowSpec> workflows = traced->children;
  workflows.push_back(workflow);
  return Make(traced->definition_bytes, std::move(workflows));
}

absl::StatusOr<std::shared_ptr<const Program>> Program::Make(const std::string& definition_bytes,
                                                             std::vector<WorkflowSpec> workflows) {
  auto program = std::make_shared<Program>();
  if (!program->definition.ParseFromString(definition_bytes)) {
    return absl::InternalError("a traced definition does not parse");
  }
  program->workflows = std::move(workflows);
  program->FindFacts();
  program->FindEvents(0, /*in_loop=*/false);
  return std::shared_ptr<const Program>(std::move(program));
}

void Program::FindFacts() {
  for (const v1::Scope& scope : definition.scopes()) {
    std::vector<Facts>& found = facts.emplace_back();
    found.resize(static_cast<size_t>(scope.steps_size()));
    for (uint32_t i = 0; i < found.size(); ++i) {
      const v1::Step& step = scope.steps(static_cast<int>(i));
      found[i].early =
          step.has_join() && (step.join().first() != 0 || step.join().tolerated_failures() != 0);
      const int waits = step.has_block()     ? 0
                        : step.has_switch_() ? std::min(step.inputs_size(), 1)
                                             : step.inputs_size();
      const auto reads_step = [&](uint32_t source, bool wait) {
        AddDistinct(&found[source].readers, i);
        AddDistinct(&found[i].sources, source);
        if (wait) {
          AddDistinct(&found[i].waits, Source{false, source});
        } else {
          found[source].read_late = true;
        }
      };
      const auto reads = [&](const v1::Input& input, bool wait) {
        if (input.source_case() == v1::Input::kStep) {
          reads_step(input.step(), wait);
        } else if (input.source_case() == v1::Input::kParameter && wait) {
          AddDistinct(&found[i].waits, Source{true, input.parameter()});
        }
      };
      for (int k = 0; k < step.inputs_size(); ++k) reads(step.inputs(k), k < waits);
      for (const v1::CatchClause& clause : step.catches()) {
        for (const v1::Input& capture : clause.captures()) reads(capture, false);
      }
      for (const uint32_t after : step.after()) reads_step(after, true);
    }
    if (scope.result().source_case() == v1::Input::kStep) {
      found[scope.result().step()].in_result = true;
    }
  }
  for (const v1::Scope& scope : definition.scopes()) {
    for (const v1::Step& step : scope.steps()) {
      if (step.loop().done().source_case() != v1::Input::kStep) continue;
      facts[step.loop().body()][step.loop().done().step()].in_result = true;
    }
  }
}

void Program::FindEvents(uint32_t index, bool in_loop) {
  for (const v1::Step& step : scope(index).steps()) {
    if (step.has_wait_event()) {
      events.insert(step.wait_event().event());
      if (in_loop) loop_events.insert(step.wait_event().event());
    }
    if (step.has_map()) FindEvents(step.map().body(), in_loop);
    if (step.map().has_page_body()) FindEvents(step.map().page_body(), in_loop);
    if (step.has_loop()) FindEvents(step.loop().body(), /*in_loop=*/true);
    if (step.has_block()) FindEvents(step.block().body(), in_loop);
    for (const v1::SwitchStep::Case& one : step.switch_().cases()) FindEvents(one.body(), in_loop);
    if (step.switch_().has_default_body()) FindEvents(step.switch_().default_body(), in_loop);
    for (const v1::CatchClause& clause : step.catches()) FindEvents(clause.body(), in_loop);
  }
}

// ---- the world
// ------------------------------------------------------------------------------------------------

void Simulation::Post(absl::Duration after, Position position, std::function<void()> action) {
  const absl::Duration at = now_ + (instant() ? absl::ZeroDuration() : after);
  queue_.emplace(std::tuple(at, std::move(position), ++sequence_), std::move(action));
}

SimExecution* Simulation::Find(const std::string& workflow_id) {
  // The newest of several runs.
  for (auto execution = executions_.rbegin(); execution != executions_.rend(); ++execution) {
    if ((*execution)->workflow_id() == workflow_id) return execution->get();
  }
  return nullptr;
}

SimExecution* Simulation::Start(std::shared_ptr<const Program> program, std::string workflow_id,
                                std::vector<std::shared_ptr<const Payload>> inputs, int depth,
                                Position position) {
  std::string run_id =
      executions_.empty() ? script_.run_id : absl::StrCat(script_.run_id, ".", executions_.size());
  auto execution = std::make_unique<SimExecution>(this, std::move(workflow_id), std::move(run_id),
                                                  depth, std::move(position));
  SimExecution* made = execution.get();
  if (!executions_.empty()) {
    made->set_report_child(report_.children.size());
    report_.children.push_back({.workflow_id = made->workflow_id(),
                                .workflow = program->definition.name(),
                                .status = "running",
                                .started = now_,
                                .closed = absl::ZeroDuration()});
  }
  executions_.push_back(std::move(execution));
  made->Begin(std::move(program), std::move(inputs));
  return made;
}

absl::StatusOr<TestReport> Simulation::Run(std::shared_ptr<const Program> program,
                                           std::vector<Payload> inputs) {
  const std::string name = program->definition.name();
  std::vector<std::shared_ptr<const Payload>> values;
  for (Payload& input : inputs) {
    values.push_back(std::make_shared<const Payload>(std::move(input)));
  }
  // Before anything of the same instant: an event that is there when its reader looks.
  for (TestScript::Event& event : script_.events) {
    Post(event.at, {}, [this, &event] {
      SimExecution* target =
          Find(event.workflow_id.empty() ? script_.workflow_id : event.workflow_id);
      if (target == nullptr) return;
      target->Deliver(event.event, std::make_shared<const Payload>(event.value));
    });
  }
  SimExecution* main = Start(std::move(program), script_.workflow_id, std::move(values), 0, {0});
  main->set_on_closed([this] { report_.elapsed = now_; });
  if (script_.cancel_at != absl::InfiniteDuration()) {
    Post(script_.cancel_at, {}, [main] { main->Cancel("the script cancels it"); });
  }
  while (true) {
    if (queue_.empty()) {
      if (main->closed()) break;
      // Where nothing takes time, a wait that nothing will end is over.
      const bool moved =
          instant() && std::any_of(executions_.begin(), executions_.end(),
                                   [](const auto& one) { return one->EndFirstWait(); });
      if (moved) continue;
      Stuck();
      break;
    }
    if (++actions_ > kTestActionsMax) {
      return absl::ResourceExhaustedError(
          absl::StrCat("workflow ", name, " was stopped after ", kTestActionsMax, " actions, at ",
                       absl::FormatDuration(now_), ": does a loop in it ever end?"));
    }
    const auto next = queue_.begin();
    now_ = std::get<0>(next->first);
    const std::function<void()> action = std::move(next->second);
    queue_.erase(next);
    action();
  }
  report_.labels = main->labels();
  const Ended& outcome = main->outcome();
  if (outcome.failure) {
    report_.outcome = RawOutcome::Fail(*outcome.failure);
  } else if (outcome.value != nullptr) {
    report_.outcome = RawOutcome::Value(*outcome.value);
  }
  return std::move(report_);
}

void Simulation::Stuck() {
  report_.elapsed = now_;
  std::vector<std::string> lines;
  for (const auto& execution : executions_) execution->ExplainWaits(&lines);
  if (lines.size() > kStuckLinesMax) {
    const size_t more = lines.size() - kStuckLinesMax;
    lines.resize(kStuckLinesMax);
    lines.push_back(absl::StrCat("and ", more, " more"));
  }
  report_.stuck = absl::StrCat("nothing more can happen after ", absl::FormatDuration(now_), ": ",
                               absl::StrJoin(lines, "; "));
}

TestScript::Attempt* Simulation::PlannedAttempt(const std::string& task) {
  const auto plan = script_.tasks.find(task);
  return plan == script_.tasks.end() || plan->second.next.empty() ? nullptr
                                                                  : &plan->second.next.front();
}

void Simulation::BeginTask(SimExecution* execution, const std::shared_ptr<TaskRun>& run) {
  run->began = now_;
  const int64_t limit = run->task->timeouts().schedule_to_close_ms();
  if (limit > 0 && !instant()) {
    Post(absl::Milliseconds(limit), run->position, [run, limit] {
      if (run->dead) return;
      run->dead = true;
      const std::function<void(RawOutcome)> done = std::move(run->done);
      done(RawOutcome::Fail(OwnFailure(
          errors::kScheduleToClose,
          absl::StrCat("not completed within ", absl::FormatDuration(absl::Milliseconds(limit)),
                       " of its start"))));
    });
  }
  RunAttempt(execution, run);
}

// As the server decides it when an attempt fails. An attempt that would begin after its step's time
// is not waited for.
bool Simulation::TriedAgain(const TaskRun& run, const Failure& failure) const {
  const v1::TaskStep& task = *run.task;
  if (!IsRetriable(task, failure)) return false;
  if (run.attempt >= Or(task.retry().max_attempts(), kMaxAttemptsDefault)) return false;
  const int64_t limit = task.timeouts().schedule_to_close_ms();
  return limit == 0 || instant() ||
         now_ + Backoff(task.retry(), run.attempt) < run.began + absl::Milliseconds(limit);
}

void Simulation::RunAttempt(SimExecution* execution, const std::shared_ptr<TaskRun>& run) {
  const v1::TaskStep& task = *run->task;
  ++run->attempt;
  const size_t index = report_.attempts.size();
  report_.attempts.push_back({.workflow_id = execution->workflow_id(),
                              .step = run->path,
                              .task = task.task(),
                              .attempt = run->attempt,
                              .at = now_,
                              .failure = ""});
  RawOutcome outcome;
  std::map<std::string, std::string> labels;
  std::map<std::string, std::string> step_labels;
  absl::Duration takes;
  bool hangs = false;
  if (script_.takes != nullptr) {
    takes = script_.takes(report_.attempts[index]);
  } else if (const auto plan = script_.tasks.find(task.task()); plan != script_.tasks.end()) {
    takes = plan->second.takes;
  }
  const TaskHandler* handler = tasks_.Find(task.task());
  if (const TestScript::Attempt* planned = PlannedAttempt(task.task()); planned != nullptr) {
    hangs = planned->hang;
    outcome = RawOutcome::Fail(planned->failure);
    TestScript::Plan& plan = script_.tasks[task.task()];
    if (!plan.always || plan.next.size() > 1) plan.next.pop_front();
  } else if (run->bad_input) {
    outcome = RawOutcome::Fail(*run->bad_input);
  } else if (handler == nullptr) {
    outcome = RawOutcome::Fail(errors::kUnknownTask(absl::StrCat(
        "no function is registered for task ", task.task(), "; TaskSet::Register it")));
  } else {
    SimContext context(*run, *execution, absl::StrCat(execution->run_id(), ".", ++deliveries_));
    outcome = CallGuarded(*handler, context, run->inputs);
    run->progress = context.TakeProgress();
    labels = context.TakeLabels();
    step_labels = context.TakeStepLabels();
  }
  const absl::Duration limit =
      absl::Milliseconds(Or(task.timeouts().start_to_close_ms(), kStartToCloseMsDefault));
  const absl::Duration silence = task.timeouts().heartbeat_ms() == 0
                                     ? absl::InfiniteDuration()
                                     : absl::Milliseconds(task.timeouts().heartbeat_ms());
  if (hangs && silence < limit) {
    takes = silence;
    outcome = RawOutcome::Fail(TimedOut(
        errors::kHeartbeat, absl::StrCat("no heartbeat for ", absl::FormatDuration(silence))));
  } else if (hangs || (takes > limit && !instant())) {
    takes = limit;
    outcome = RawOutcome::Fail(TimedOut(
        errors::kStartToClose, absl::StrCat("no result after ", absl::FormatDuration(limit))));
  }
  const auto end = [this, execution, run, index, outcome = std::move(outcome),
                    labels = std::move(labels), step_labels = std::move(step_labels)]() mutable {
    if (run->dead) return;
    if (outcome.kind == RawOutcome::Kind::kFailure) {
      report_.attempts[index].failure = outcome.failure.type;
      if (TriedAgain(*run, outcome.failure)) {
        Post(Backoff(run->task->retry(), run->attempt), run->position, [this, execution, run] {
          if (!run->dead) RunAttempt(execution, run);
        });
        return;
      }
    } else {
      report_.attempts[index].labels = std::move(step_labels);
      for (auto& [key, value] : labels) {
        if (value.empty()) {
          execution->labels().erase(key);
        } else {
          execution->labels()[key] = std::move(value);
        }
      }
    }
    // Taken out first: it may hold the last reference to what it is called on.
    run->dead = true;
    const std::function<void(RawOutcome)> done = std::move(run->done);
    done(std::move(outcome));
  };
  Post(takes, run->position, end);
}

absl::StatusOr<TestReport> Simulate(const TaskSet& tasks, const TestScript& script,
                                    const WorkflowSpec& workflow, std::vector<Payload> inputs) {
  FLUX_RETURN_IF_ERROR(tasks.status());
  FLUX_ASSIGN_OR_RETURN(std::shared_ptr<const Program> program, Program::Of(workflow));
  return Simulation(tasks, script).Run(std::move(program), std::move(inputs));
}

absl::StatusOr<TestReport> SimulateDefinition(const TaskSet& tasks, const TestScript& script,
                                              const std::string& definition_bytes,
                                              std::vector<Payload> inputs) {
  FLUX_RETURN_IF_ERROR(tasks.status());
  FLUX_ASSIGN_OR_RETURN(std::shared_ptr<const Program> program,
                        Program::Make(definition_bytes, {}));
  return Simulation(tasks, script).Run(std::move(program), std::move(inputs));
}

// ---- the life of an execution
// -------------------------------------------------------------------------------------

SimExecution::~SimExecution() {
  if (root_ == nullptr) return;
  // Frames and their parents refer to each other until they end; what children do is over, too.
  std::vector<FramePtr> frames = {std::move(root_)};
  while (!frames.empty()) {
    const FramePtr frame = std::move(frames.back());
    frames.pop_back();
    for (Node& node : frame->nodes) {
      for (auto& [index, inner] : node.frames) frames.push_back(std::move(inner));
      node.frames.clear();
    }
    frame->parent.reset();
  }
}

void SimExecution::Begin(std::shared_ptr<const Program> program,
                         std::vector<std::shared_ptr<const Payload>> inputs) {
  std::vector<ParameterSource> parameters;
  for (std::shared_ptr<const Payload>& input : inputs) {
    parameters.push_back({{std::move(input), std::nullopt}, nullptr});
  }
  if (const int64_t limit = program->definition.execution_timeout_ms();
      limit > 0 && !world_->instant()) {
    world_->Post(absl::Milliseconds(limit), position_, [this, limit] {
      if (status_ != SimStatus::kRunning) return;
      CloseFailed(SimStatus::kFailed,
                  OwnFailure(errors::kExecutionTimeout,
                             absl::StrCat("the execution did not close within ",
                                          absl::FormatDuration(absl::Milliseconds(limit)))));
    });
  }
  root_ = OpenFrame(std::move(program), 0, FrameRole::kRoot, nullptr, 0, 0, std::move(parameters));
}

void SimExecution::Cancel(const std::string& reason) {
  if (status_ != SimStatus::kRunning) return;
  CloseFailed(SimStatus::kCancelled, FailureOf(errors::kCancelled(reason)));
}

void SimExecution::Terminate() {
  if (closed()) return;
  if (root_ != nullptr && !root_->dropped) DropFrame(root_);
  if (undoing_ != nullptr) undoing_->dead = true;
  outcome_ = Ended::Failed(FailureOf(errors::kTerminated("it was terminated")));
  Close(SimStatus::kTerminated);
}

bool SimExecution::Deliver(const std::string& event, std::shared_ptr<const Payload> payload) {
  if (status_ != SimStatus::kRunning) return false;
  const auto first = std::find_if(events_.begin(), events_.end(),
                                  [&](const SimEvent& one) { return one.name == event; });
  if (first != events_.end() && !ReadInLoop(event)) {
    Reread(&*first, payload);
    return true;
  }
  events_.push_back({events_.size() + 1, event, std::move(payload)});
  std::vector<Waiter> waiters = std::move(event_waiters_[event]);
  event_waiters_.erase(event);
  for (const Waiter& waiter : waiters) {
    const FramePtr frame = waiter.frame.lock();
    if (frame == nullptr || frame->dropped) continue;
    const uint32_t index = waiter.index;
    After(absl::ZeroDuration(), frame, index, [this, index](const FramePtr& at) {
      if (TryTakeEvent(at, index)) return;
      event_waiters_[at->step(index).wait_event().event()].push_back(
          {at, Waiter::What::kStep, index});
    });
  }
  return true;
}

void SimExecution::CloseFailed(SimStatus as, Failure failure) {
  if (status_ != SimStatus::kRunning) return;
  status_ = SimStatus::kUndoing;
  closing_as_ = as;
  outcome_ = Ended::Failed(std::move(failure));
  if (root_ != nullptr && !root_->dropped) DropFrame(root_);
  UndoNext();
}

// One after the other, the newest first.
void SimExecution::UndoNext() {
  undoing_.reset();
  if (undo_.empty()) return Close(closing_as_);
  Undoable undo = std::move(undo_.back());
  undo_.pop_back();
  auto run = std::make_shared<TaskRun>();
  run->program = undo.program;
  run->task = undo.task;
  run->path = undo.path;
  run->position = std::move(undo.position);
  run->inputs = std::move(undo.inputs);
  run->done = [this, path = undo.path](const RawOutcome& outcome) {
    Failure failure = outcome.failure;
    if (outcome.kind == RawOutcome::Kind::kContinue) {
      failure =
          OwnFailure(errors::kBadFragment, "an undo task answers with a value, or not at all");
    }
    if (!failure.type.empty()) {
      outcome_.failure->message +=
          absl::StrCat("; ", path.substr(0, path.size() - std::string_view(".undo").size()),
                       " could not be undone: ", failure.type, ": ", failure.message);
    }
    UndoNext();
  };
  undoing_ = run;
  world_->report().undone.push_back(
      undo.path.substr(0, undo.path.size() - std::string_view(".undo").size()));
  world_->BeginTask(this, run);
}

void SimExecution::Close(SimStatus status) {
  status_ = status;
  if (report_child_.has_value()) {
    TestChild& child = world_->report().children[*report_child_];
    child.status = status_name();
    child.closed = world_->now();
  }
  const std::function<void()> on_closed = std::move(on_closed_);
  if (on_closed) on_closed();
}

const char* SimExecution::status_name() const {
  switch (status_) {
    case SimStatus::kRunning:
    case SimStatus::kUndoing:
      return "running";
    case SimStatus::kCompleted:
      return "completed";
    case SimStatus::kSkipped:
      return "skipped";
    case SimStatus::kFailed:
      return "failed";
    case SimStatus::kCancelled:
      return "cancelled";
    case SimStatus::kTerminated:
      return "terminated";
  }
  return "";
}

namespace {

// Calls `visit` for each unfinished step, in the order of the text.
template <typename Visit>
bool VisitOpen(const FramePtr& frame, const Visit& visit) {
  for (uint32_t i = 0; i < frame->nodes.size(); ++i) {
    const Node& node = frame->nodes[i];
    if (node.output.settled() || !node.started) continue;
    if (visit(frame, i)) return true;
    for (const auto& [index, inner] : node.frames) {
      if (VisitOpen(inner, visit)) return true;
    }
  }
  return false;
}

}  // namespace

void SimExecution::ExplainWaits(std::vector<std::string>* lines) const {
  if (closed() || root_ == nullptr || root_->dropped) return;
  VisitOpen(root_, [&](const FramePtr& frame, uint32_t i) {
    const Node& node = frame->nodes[i];
    const std::string where = absl::StrCat("step ", frame->PathOf(i),
                                           depth_ == 0 ? "" : absl::StrCat(" of ", workflow_id_));
    if (node.awaits_event) {
      lines->push_back(absl::StrCat(where, " waits for event ", frame->step(i).wait_event().event(),
                                    ", which nobody sends"));
    } else if (node.parked) {
      lines->push_back(absl::StrCat(where, " is parked: ", node.parked_failure.type, ": ",
                                    node.parked_failure.message));
    }
    return false;
  });
}

bool SimExecution::EndFirstWait() {
  if (closed() || root_ == nullptr || root_->dropped) return false;
  return VisitOpen(root_, [&](const FramePtr& frame, uint32_t i) {
    if (!frame->nodes[i].awaits_event) return false;
    const FramePtr held = frame;
    EventTimedOut(held, i);
    return true;
  });
}

}  // namespace flux::internal
