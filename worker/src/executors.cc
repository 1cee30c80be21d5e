// The executors' side of a session: threads that take deliveries off the queue, call the user's
// functions and leave results in the outbox.
//
// How many work at a time: a batch wakes as many threads as there are CPUs, and the keeper adds
// more, up to the slots, while the queue does not move. So short tasks run on few warm threads, and
// tasks that block still get all the slots within a millisecond or two.
#include <algorithm>
#include <exception>
#include <map>
#include <mutex>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/src/rpc_convert.h"
#include "flux/codec.h"
#include "flux/error.h"
#include "flux/internal/tracer.h"
#include "proto/bridge.h"
#include "worker/src/session.h"
#include "worker/src/task_text.h"

namespace flux::internal {
namespace {

constexpr size_t kResultOverheadBytes = 96;  // of a result's token and framing, for message sizes
constexpr double kSmoothing = 1.0 / 16;
constexpr size_t kFailureMessageBytesMax = 16 * 1024;

// What a function sees of its delivery. On the executor's stack while it runs.
class DeliveryContext final : public TaskContext {
 public:
  DeliveryContext(Session* session, HeldTask* held) : session_(session), held_(held) {}

  uint32_t attempt() const override { return std::max(task().attempt(), 1u); }
  std::string workflow_id() const override { return task().workflow_id(); }
  std::string run_id() const override { return HexOf(held_->token->run_id()); }
  std::string step() const override { return task().step(); }
  std::string fencing_token() const override { return FencingToken(*held_->token); }
  bool cancelled() const override { return held_->cancelled.load(std::memory_order_relaxed); }
  // Once the function has returned.
  std::map<std::string, std::string> TakeLabels() { return std::move(labels_); }
  std::map<std::string, std::string> TakeStepLabels() { return std::move(step_labels_); }
  absl::Time deadline() const override {
    if (task().start_to_close_ms() <= 0) return absl::InfiniteFuture();
    return absl::Now() + absl::Milliseconds(task().start_to_close_ms()) -
           absl::Nanoseconds(MonotonicNow() - held_->received);
  }

 protected:
  void HeartbeatPayload(Payload progress) override {
    session_->Heartbeat(held_, std::move(progress));
  }
  void LabelText(std::string key, std::string value) override {
    std::lock_guard lock(labels_mutex_);
    labels_[std::move(key)] = std::move(value);
  }
  void StepLabelText(std::string key, std::string value) override {
    std::lock_guard lock(labels_mutex_);
    if (value.empty()) {
      step_labels_.erase(key);
    } else {
      step_labels_[std::move(key)] = std::move(value);
    }
  }
  Payload LastProgressPayload() const override {
    if (!task().has_progress()) return {};
    v1::Payload copy = task().progress();
    return TakePayload(&copy);
  }

 private:
  const v1::Task& task() const { return *held_->task; }

  Session* session_;
  HeldTask* held_;
  std::mutex labels_mutex_;  // the function may share its context with threads of its own
  std::map<std::string, std::string> labels_;
  std::map<std::string, std::string> step_labels_;
};

// The one place where user code may throw.
RawOutcome CallFunction(const TaskHandler& function, const std::string& name, TaskContext& context,
                        std::vector<Payload> inputs) {
  try {
    return function(context, std::move(inputs));
  } catch (const std::exception& exception) {
    return RawOutcome::Fail(
        Failure{.type = std::string(errors::kException.name()),
                .message = absl::StrCat("task '", name, "' threw: ", exception.what()),
                .non_retriable = false,
                .source = ""});
  } catch (...) {
    return RawOutcome::Fail(Failure{
        .type = std::string(errors::kException.name()),
        .message = absl::StrCat("task '", name, "' threw something that is no std::exception"),
        .non_retriable = false,
        .source = ""});
  }
}

RawOutcome FailFor(const ErrorType& type, std::string message) {
  return RawOutcome::Fail(Failure{.type = std::string(type.name()),
                                  .message = std::move(message),
                                  .non_retriable = type.non_retriable(),
                                  .source = ""});
}

RawOutcome RunTask(const TaskHandlers& handlers, v1::Task* task, TaskContext& context) {
  auto handler = handlers.find(task->name());
  if (handler == handlers.end()) {
    return FailFor(errors::kUnknownTask,
                   absl::StrCat("this worker has no function for task '", task->name(),
                                "': register it, or give its queue only to workers that have it"));
  }
  std::vector<Payload> inputs;
  inputs.reserve(static_cast<size_t>(task->inputs_size()));
  for (v1::TaskInput& input : *task->mutable_inputs()) {
    Payload payload = TakePayload(input.mutable_payload());
    if (!input.pointer().empty()) {
      absl::StatusOr<Payload> part = Project(std::move(payload), input.pointer());
      if (!part.ok()) {
        return FailFor(errors::kBadInput,
                       absl::StrCat("argument ", inputs.size(), " of task '", task->name(),
                                    "' at '", input.pointer(), "': ", part.status().message()));
      }
      payload = *std::move(part);
    }
    inputs.push_back(std::move(payload));
  }
  return CallFunction(handler->second, task->name(), context, std::move(inputs));
}

// Too large for the coordinator: what to say of it; empty: it is not.
std::string TooLarge(const RawOutcome& outcome, uint64_t bytes_max) {
  if (outcome.kind == RawOutcome::Kind::kValue && outcome.value.data.size() > bytes_max) {
    return absl::StrCat("returned ", outcome.value.data.size(),
                        " bytes, over fluxd's payload-bytes-max of ", bytes_max,
                        " for a payload: return less, or keep the data elsewhere and return where");
  }
  if (outcome.kind != RawOutcome::Kind::kContinue) return "";
  size_t bytes = outcome.fragment->definition_bytes.size();
  for (const Payload& input : outcome.fragment->inputs) bytes += input.data.size();
  if (bytes <= bytes_max) return "";
  return absl::StrCat("goes on as a graph that has, with its arguments, ", bytes,
                      " bytes, over fluxd's payload-bytes-max of ", bytes_max,
                      ": pass data by reference, or map over a list instead of writing it out");
}

// A user's codec writes what it likes; a message with other text than UTF-8 is one that the
// coordinator cannot read at all.
bool TextIsUtf8(const Payload& payload) {
  return IsUtf8(payload.content_type) &&
         std::all_of(payload.metadata.begin(), payload.metadata.end(),
                     [](const auto& entry) { return IsUtf8(entry.first) && IsUtf8(entry.second); });
}

// False: the definition is not one of this SDK's.
bool FillContinuation(const Fragment& fragment, v1::Continuation* continuation) {
  for (Payload input : fragment.inputs) MovePayload(std::move(input), continuation->add_inputs());
  return continuation->mutable_fragment()->ParseFromString(fragment.definition_bytes);
}

}  // namespace

std::unique_ptr<v1::TaskResult> Session::Execute(HeldTask* held) {
  DeliveryContext context(this, held);
  RawOutcome outcome = RunTask(handlers_, held->task, context);
  const uint64_t bytes_max = payload_bytes_max_.load(std::memory_order_relaxed);
  if (const std::string why = TooLarge(outcome, bytes_max); !why.empty()) {
    outcome =
        FailFor(errors::kPayloadTooLarge, absl::StrCat("task '", held->task->name(), "' ", why));
  }
  const auto unreadable = [](const Payload& payload) { return !TextIsUtf8(payload); };
  if ((outcome.kind == RawOutcome::Kind::kValue && unreadable(outcome.value)) ||
      (outcome.kind == RawOutcome::Kind::kContinue &&
       std::any_of(outcome.fragment->inputs.begin(), outcome.fragment->inputs.end(), unreadable))) {
    outcome = FailFor(errors::kBadResult,
                      absl::StrCat("task '", held->task->name(),
                                   "' gives a payload whose content type or metadata is not UTF-8: "
                                   "mend its codec, or put those bytes into the data"));
  }
  auto result = std::make_unique<v1::TaskResult>();
  if (outcome.kind == RawOutcome::Kind::kContinue &&
      !FillContinuation(*outcome.fragment, result->mutable_continuation())) {
    outcome = FailFor(errors::kBadResult, "the graph to go on with is no definition");
  }
  if (outcome.kind != RawOutcome::Kind::kFailure) {
    for (auto& [key, value] : context.TakeLabels()) {
      (*result->mutable_labels())[key] = std::move(value);
    }
    for (auto& [key, value] : context.TakeStepLabels()) {
      (*result->mutable_step_labels())[key] = std::move(value);
    }
  }
  switch (outcome.kind) {
    case RawOutcome::Kind::kValue:
      MovePayload(std::move(outcome.value), result->mutable_value());
      break;
    case RawOutcome::Kind::kSkip:
      result->set_skip(true);
      break;
    case RawOutcome::Kind::kContinue:
      break;
    case RawOutcome::Kind::kFailure: {
      outcome.failure.message =
          CleanText(std::move(outcome.failure.message), kFailureMessageBytesMax);
      outcome.failure.type = CleanText(std::move(outcome.failure.type), kFailureMessageBytesMax);
      outcome.failure.source = options_.id;
      MoveFailure(std::move(outcome.failure), result->mutable_failure());
      // An attempt that reported nothing hands on what it was given.
      if (Payload progress = Progress(held); progress.encoding != Encoding::kUnspecified) {
        MovePayload(std::move(progress), result->mutable_progress());
      } else if (held->task->has_progress()) {
        *result->mutable_progress() = std::move(*held->task->mutable_progress());
      }
      break;
    }
  }
  return result;
}

void Session::ExecutorMain(Executor* self) {
  std::vector<std::unique_ptr<HeldTask>> garbage;
  Lock lock(mutex_);
  while (true) {
    HeldTask* held = NextTask();
    if (held == nullptr) {
      if (executors_stop_) return;
      const size_t before = queue_.size();
      Flush(lock);
      if (queue_.size() != before || executors_stop_) continue;
      self->woken = false;
      parked_.push_back(self);
      self->wake.wait(lock, [self] { return self->woken; });
      continue;
    }
    garbage.swap(garbage_);
    lock.unlock();
    garbage.clear();
    std::unique_ptr<v1::TaskResult> result = Execute(held);
    const Nanos now = MonotonicNow();
    lock.lock();
    Finished(held, std::move(result), now);
    if (outbox_.size() >= kResultsFlushAt)
      Flush(lock);
    else if (!keeper_ticking_ && queued_ > 0 && !outbox_.empty())
      WakeKeeper();
  }
}

HeldTask* Session::NextTask() {
  if (executors_stop_) return nullptr;
  while (!queue_.empty()) {
    HeldTask* held = queue_.front();
    queue_.pop_front();
    if (held->forgotten) {
      Discard(held);
      continue;
    }
    --queued_;
    ++running_;
    held->state = HeldState::kRunning;
    held->started = MonotonicNow();
    return held;
  }
  return nullptr;
}

void Session::Finished(HeldTask* held, std::unique_ptr<v1::TaskResult> result, Nanos now) {
  --running_;
  ++finished_count_;
  const auto nanos = static_cast<double>(now - held->started);
  task_nanos_ = task_nanos_ == 0 ? nanos : task_nanos_ + (nanos - task_nanos_) * kSmoothing;
  UnlistHeartbeat(held);
  held->state = HeldState::kFinished;
  if (draining_ && running_ == 0) WakeKeeper();
  if (held->forgotten || ended_) {
    if (held->forgotten) Discard(held);
    return;
  }
  if (result->has_failure())
    ++stats_.failed;
  else
    ++stats_.completed;
  result->unsafe_arena_set_allocated_token(held->token);
  held->result_bytes = kResultOverheadBytes + result->value().data().size() +
                       result->failure().message().size() + result->progress().data().size();
  if (result->has_continuation()) held->result_bytes += result->continuation().ByteSizeLong();
  for (const auto* labels : {&result->labels(), &result->step_labels()}) {
    for (const auto& [key, value] : *labels) held->result_bytes += key.size() + value.size();
  }
  held->result = std::move(result);
  ++unacked_;
  unacked_bytes_ += held->result_bytes;
  held->in_outbox = true;
  outbox_.push_back(held);
}

void Session::WakeExecutors(size_t tasks) {
  const size_t busy = active();
  const size_t wanted = std::min(tasks, eager_ > busy ? eager_ - busy : size_t{1});
  size_t woken = 0;
  while (woken < wanted && WakeOne()) ++woken;
  if (woken < tasks) WakeKeeper();
}

bool Session::WakeOne() {
  if (parked_.empty()) return false;
  Executor* executor = parked_.back();
  parked_.pop_back();
  executor->woken = true;
  executor->wake.notify_one();
  return true;
}

bool Session::AddExecutor() {
  if (executors_.size() >= options_.slots) return false;
  auto made = std::make_unique<Executor>();
  Executor* executor = made.get();
  try {
    executor->thread = std::thread([this, executor] { ExecutorMain(executor); });
  } catch (const std::system_error& error) {
    // The system's limit on threads is lower than the slots: the worker goes on with those it has.
    Log(LogLevel::kError, absl::StrCat("thread ", executors_.size() + 1, " of ", options_.slots,
                                       " could not be started: ", error.what()));
    return false;
  }
  executors_.push_back(std::move(made));
  return true;
}

void Session::Heartbeat(HeldTask* held, Payload progress) {
  std::string dropped;  // why
  {
    Lock lock(mutex_);
    const Nanos now = MonotonicNow();
    held->heartbeat_called = now;
    if (progress.data.size() > kProgressBytesMax) {
      dropped = absl::StrCat("progress of over ", kProgressBytesMax, " bytes");
    } else if (!TextIsUtf8(progress)) {
      dropped = "progress whose content type or metadata is not UTF-8";
    } else if (progress.encoding != Encoding::kUnspecified) {
      held->progress = std::move(progress);
    }
    if (held->forgotten || ended_) return;
    if (!held->heartbeat_listed) {
      held->heartbeat_listed = true;
      heartbeats_.push_back(held);
    }
    // The first one goes at once; what follows within the interval only replaces what will be sent
    // at its end.
    if (held->heartbeat_next <= now)
      Flush(lock);
    else if (held->heartbeat_next < keeper_due_)
      WakeKeeper();
  }
  if (!dropped.empty()) {
    Log(LogLevel::kWarning, absl::StrCat("task '", held->task->name(), "' reported ", dropped,
                                         ": the heartbeat counts, the progress is not kept"));
  }
}

Payload Session::Progress(const HeldTask* held) const {
  Lock lock(mutex_);
  return held->progress;
}

}  // namespace flux::internal
