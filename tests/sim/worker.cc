#include "tests/sim/worker.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tests/sim/simulation.h"

namespace flux::sim {
namespace {

constexpr int64_t kMsUs = 1'000;
constexpr int64_t kSlowTaskMs = 30'000;
constexpr int64_t kHungMs = 60'000;
constexpr int64_t kDrainUs = 5'000'000;
constexpr size_t kTooLargeBytes = 70'000;  // above the limit that simulated coordinators have
constexpr char kPoison[] = "\"this must not count\"";

}  // namespace

SimWorker::SimWorker(Simulation* simulation, Options options)
    : sim_(*simulation), options_(std::move(options)) {}

// ---- the stream ----

void SimWorker::Connect() {
  if (stream_ != 0) return;
  stream_ = sim_.OpenStream(this);
  if (stream_ == 0) return ConnectLater();
  welcomed_ = false;
  v1::ConnectRequest message;
  v1::WorkerHello* hello = message.mutable_hello();
  hello->set_worker_id(options_.id);
  hello->set_session_id(absl::StrCat(options_.id, "-", session_));
  hello->set_queue(options_.queue);
  hello->set_slots(options_.slots);
  for (const std::string& task : options_.tasks) hello->add_tasks(task);
  for (const auto& [token, held] : held_) {
    v1::RunningTask* running = hello->add_running();
    *running->mutable_token() = held.task.token();
    running->set_elapsed_ms((sim_.timeline().now_us() - held.since_us) / kMsUs);
    running->set_finished(held.state == State::kFinished);
  }
  credit_ = 0;
  if (draining_) {
    message.set_draining(true);
  } else {
    const uint32_t room = options_.slots + options_.prefetch;
    credit_ = room - std::min<uint32_t>(room, static_cast<uint32_t>(held_.size()));
    message.set_credit(credit_);
  }
  Send(std::move(message));
}

void SimWorker::ConnectLater() {
  sim_.timeline().After(sim_.dice().Between(20, 1'000) * kMsUs, [this, session = session_] {
    if (session == session_) Connect();
  });
}

void SimWorker::OnStreamGone(engine::StreamId stream) {
  if (stream != stream_) return;
  stream_ = 0;
  ConnectLater();
}

void SimWorker::Send(v1::ConnectRequest message) {
  if (stream_ != 0) sim_.ToCoordinator(stream_, std::move(message));
}

void SimWorker::GrantCredit() {
  if (draining_ || stream_ == 0 || !welcomed_) return;
  const uint32_t room = options_.slots + options_.prefetch;
  const uint32_t taken = static_cast<uint32_t>(held_.size()) + credit_;
  if (taken >= room) return;
  v1::ConnectRequest message;
  message.set_credit(room - taken);
  credit_ = room - static_cast<uint32_t>(held_.size());
  Send(std::move(message));
}

void SimWorker::OnMessage(engine::StreamId stream, const v1::ConnectResponse& message) {
  if (stream != stream_) return;
  if (message.has_welcome() && !welcomed_) {
    welcomed_ = true;
    // What the stream before this one carried and nobody acknowledged goes again.
    v1::ConnectRequest again;
    for (const auto& [token, held] : held_) {
      if (held.state == State::kFinished) *again.add_results() = held.result;
    }
    if (again.results_size() > 0) Send(std::move(again));
  }
  if (message.ping() != 0) {
    v1::ConnectRequest pong;
    pong.set_pong(message.ping());
    Send(std::move(pong));
  }
  for (const v1::ResultAck& ack : message.acks()) Acknowledged(ack);
  for (const v1::CancelTask& cancel : message.cancels()) Cancelled(cancel);
  for (const v1::Task& task : message.tasks()) Accept(task);
  RunSome();
  GrantCredit();
  MaybeDrained();
}

// ---- tasks ----

void SimWorker::Accept(const v1::Task& task) {
  if (credit_ > 0) --credit_;
  const std::string token = task.token().SerializeAsString();
  if (held_.contains(token)) return;  // the same delivery twice
  if (draining_) {
    v1::ConnectRequest message;
    *message.add_released() = task.token();
    Send(std::move(message));
    return;
  }
  Held& held = held_[token];
  held.task = task;
  held.since_us = sim_.timeline().now_us();
  queue_.push_back(token);
  if (task.heartbeat_ms() > 0) Heartbeat(token);
}

void SimWorker::RunSome() {
  while (running_ < options_.slots && !queue_.empty()) {
    const std::string token = queue_.front();
    queue_.erase(queue_.begin());
    const auto it = held_.find(token);
    if (it == held_.end() || it->second.state != State::kQueued) continue;
    Begin(token, &it->second);
  }
}

void SimWorker::Begin(const std::string& token, Held* held) {
  ++running_;
  held->state = State::kRunning;
  held->since_us = sim_.timeline().now_us();
  const TaskScript& script =
      sim_.ScriptsOf(held->task.workflow()).find(NameOf(held->task.step()))->second;
  int64_t takes_ms =
      AnswerOf(script, sim_.script_seed(), held->task.step(), TextsOf(held->task)).duration_ms;
  if (sim_.Strikes(sim_.plan().hang_permille)) {
    held->hangs = true;
    // Nobody tells it to stop if it is a second copy of what was taken back meanwhile; the slot
    // must not be lost for ever, once no more hang.
    sim_.timeline().After(kHungMs * kMsUs, [this, session = session_, token] {
      if (session != session_) return;
      v1::CancelTask cancel;
      if (cancel.mutable_token()->ParseFromString(token)) Cancelled(cancel);
      RunSome();
      GrantCredit();
    });
    return;
  }
  if (sim_.Strikes(sim_.plan().slow_task_permille)) takes_ms = sim_.dice().Between(0, kSlowTaskMs);
  sim_.timeline().After(takes_ms * kMsUs + sim_.dice().Between(1, 500),
                        [this, session = session_, token] {
                          if (session == session_) Finish(token);
                        });
}

void SimWorker::Finish(const std::string& token) {
  const auto it = held_.find(token);
  if (it == held_.end() || it->second.state != State::kRunning) return;
  Held& held = it->second;
  --running_;
  held.state = State::kFinished;
  held.result = ResultOf(held.task);
  v1::ConnectRequest message;
  *message.add_results() = held.result;
  Send(std::move(message));
  if (sim_.Strikes(sim_.plan().lie_permille)) Lie(held.task.token());
  RunSome();
}

v1::TaskResult SimWorker::ResultOf(const v1::Task& task) {
  v1::TaskResult result;
  *result.mutable_token() = task.token();
  if (sim_.ledger().Latest(task.token()) > task.token().delivery()) {
    // A higher number has left since: whatever this one says must not count any more.
    sim_.ledger().Forged(task.token());
    *result.mutable_value() = Json(kPoison);
    return result;
  }
  sim_.ledger().Answered(task.token());
  const TaskScript& script = sim_.ScriptsOf(task.workflow()).find(NameOf(task.step()))->second;
  const Answer answer = AnswerOf(script, sim_.script_seed(), task.step(), TextsOf(task));
  if (task.attempt() <= answer.failing_attempts) {
    *result.mutable_failure() = answer.transient;
  } else if (answer.end == Answer::End::kValue) {
    *result.mutable_value() = answer.value;
  } else if (answer.end == Answer::End::kSkip) {
    result.set_skip(true);
  } else if (answer.end == Answer::End::kContinue) {
    *result.mutable_continuation()->mutable_fragment() = *answer.fragment;
    for (const v1::Payload& input : answer.inputs)
      *result.mutable_continuation()->add_inputs() = input;
  } else {
    *result.mutable_failure() = answer.failure;
  }
  // Those of failures count for nothing.
  const auto labels = LabelsOf(script, task.step());
  result.mutable_labels()->insert(labels.begin(), labels.end());
  const auto step_labels = StepLabelsOf(script, task.step());
  result.mutable_step_labels()->insert(step_labels.begin(), step_labels.end());
  if (sim_.Strikes(sim_.plan().garbage_permille)) Garble(task, &result);
  return result;
}

void SimWorker::Garble(const v1::Task& task, v1::TaskResult* result) {
  sim_.ledger().Garbled(task);
  if (sim_.dice().OneIn(2)) {
    result->clear_outcome();
  } else {
    *result->mutable_value() = Json(absl::StrCat("\"", std::string(kTooLargeBytes, 'x'), "\""));
  }
}

void SimWorker::Lie(const v1::TaskToken& token) {
  v1::ConnectRequest message;
  v1::TaskResult* result = message.add_results();
  v1::TaskToken* forged = result->mutable_token();
  *forged = token;
  switch (sim_.dice().Below(6)) {
    case 0:
      forged->set_delivery(forged->delivery() - 1);
      break;
    case 1:
      forged->set_delivery(forged->delivery() + 1'000'000);
      break;
    case 2:
      forged->set_generation(forged->generation() + 1'000);
      break;
    case 3:
      forged->set_frame(forged->frame() + 1'000'000);
      break;
    case 4:
      forged->set_incarnation(forged->incarnation() + 1);
      break;
    default: {
      std::string run = forged->run_id();
      run[sim_.dice().Below(run.size())] ^= static_cast<char>(1 + sim_.dice().Below(255));
      forged->set_run_id(run);
      break;
    }
  }
  *result->mutable_value() = Json(kPoison);
  sim_.ledger().Forged(*forged);
  Send(std::move(message));
}

void SimWorker::Heartbeat(const std::string& token) {
  const auto it = held_.find(token);
  if (it == held_.end() || it->second.state == State::kFinished || it->second.hangs) return;
  v1::ConnectRequest message;
  v1::Heartbeat* heartbeat = message.add_heartbeats();
  *heartbeat->mutable_token() = it->second.task.token();
  *heartbeat->mutable_progress() = Json("\"on its way\"");
  Send(std::move(message));
  sim_.timeline().After(it->second.task.heartbeat_ms() * kMsUs / 4,
                        [this, session = session_, token] {
                          if (session == session_) Heartbeat(token);
                        });
}

void SimWorker::Acknowledged(const v1::ResultAck& ack) {
  const auto it = held_.find(ack.token().SerializeAsString());
  const bool known = it != held_.end() && it->second.state == State::kFinished;
  // An acknowledgement that comes twice may be of what the worker said of the token before.
  // Garbage is recorded as a failure; and what a task goes on as may fail, and be tried again.
  const bool settles = known &&
                       it->second.result.outcome_case() != v1::TaskResult::OUTCOME_NOT_SET &&
                       !it->second.result.has_failure() && !it->second.result.has_continuation() &&
                       it->second.result.value().data().size() < kTooLargeBytes &&
                       it->second.result.value().data() != Json(kPoison).data();
  sim_.ledger().Acknowledged(ack, settles);
  if (!known) return;
  held_.erase(it);
  if (!sim_.Strikes(sim_.plan().lie_permille)) return;
  // Another word on what is settled.
  v1::ConnectRequest message;
  v1::TaskResult* result = message.add_results();
  *result->mutable_token() = ack.token();
  *result->mutable_value() = Json(kPoison);
  Send(std::move(message));
}

void SimWorker::Cancelled(const v1::CancelTask& cancel) {
  const auto it = held_.find(cancel.token().SerializeAsString());
  if (it == held_.end()) return;
  if (it->second.state == State::kRunning) --running_;
  held_.erase(it);
}

// ---- life ----

void SimWorker::Die() {
  sim_.Note(absl::StrCat(options_.id, " dies with ", held_.size(), " tasks"));
  if (stream_ != 0) sim_.BreakStream(stream_);
  Restart(sim_.dice().Between(50, 3'000) * kMsUs);
}

void SimWorker::Restart(int64_t after_us) {
  ++session_;
  stream_ = 0;
  held_.clear();
  queue_.clear();
  credit_ = running_ = 0;
  draining_ = welcomed_ = false;
  sim_.timeline().After(after_us, [this, session = session_] {
    if (session == session_) Connect();
  });
}

void SimWorker::Drain() {
  if (draining_ || stream_ == 0) return;
  sim_.Note(absl::StrCat(options_.id, " drains"));
  draining_ = true;
  v1::ConnectRequest message;
  message.set_draining(true);
  for (const std::string& token : queue_) {
    const auto it = held_.find(token);
    if (it == held_.end() || it->second.state != State::kQueued) continue;
    *message.add_released() = it->second.task.token();
    held_.erase(it);
  }
  queue_.clear();
  Send(std::move(message));
  sim_.timeline().After(kDrainUs, [this, session = session_] {
    if (session == session_) Die();
  });
  MaybeDrained();
}

void SimWorker::MaybeDrained() {
  if (!draining_ || !held_.empty() || stream_ == 0) return;
  sim_.BreakStream(stream_);
  Restart(sim_.dice().Between(10, 1'000) * kMsUs);
}

}  // namespace flux::sim
