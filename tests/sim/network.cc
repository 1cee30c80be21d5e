// Streams between workers and the coordinator. A stream delivers in order until it breaks; what is
// under way then is lost, and each end learns of it in its own time, the coordinator perhaps never.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tests/sim/simulation.h"
#include "tests/sim/worker.h"

namespace flux::sim {
namespace {

constexpr int64_t kNoticeUs = 3'000'000;

}  // namespace

engine::StreamId Simulation::OpenStream(SimWorker* worker) {
  if (!process_->up()) return 0;
  const engine::StreamId stream = next_stream_++;
  Link& link = links_[stream];
  link.worker = worker;
  process_->engine().OnWorkerOpen(stream, "simulated");
  process_->Poke();
  return stream;
}

void Simulation::ToCoordinator(engine::StreamId stream, v1::ConnectRequest message) {
  const auto it = links_.find(stream);
  if (it == links_.end() || it->second.broken) return;
  Link& link = it->second;
  for (v1::TaskResult& result : *message.mutable_results()) {
    PlantInResult(options_.bug, ledger_.Latest(result.token()), &result);
  }
  const bool hello = message.has_hello();
  if (!hello && Strikes(plan_.double_permille)) {
    timeline_.After(2 * Delay(),
                    [this, stream, message]() mutable { Arrive(stream, std::move(message)); });
  }
  int64_t at = std::max(timeline_.now_us() + Delay(), link.up_at_us);
  // One that may be overtaken; never the hello, which begins the stream.
  if (!hello && Strikes(plan_.reorder_permille)) {
    at += 10 * Delay();
  } else {
    link.up_at_us = at;
  }
  timeline_.At(at, [this, stream, message = std::move(message)]() mutable {
    Arrive(stream, std::move(message));
  });
}

void Simulation::Arrive(engine::StreamId stream, v1::ConnectRequest message) {
  const auto it = links_.find(stream);
  if (it == links_.end() || it->second.broken || !process_->up()) return;
  if (verbose()) {
    if (message.has_hello()) {
      Note(absl::StrCat("stream ", stream, " says hello as ", message.hello().session_id()));
      for (const v1::RunningTask& running : message.hello().running()) {
        Note(absl::StrCat("stream ", stream, running.finished() ? " has done " : " runs ",
                          TextOf(running.token())));
      }
    }
    for (const v1::TaskResult& result : message.results()) {
      Note(absl::StrCat("stream ", stream, " answers ", TextOf(result.token()), " with ",
                        result.has_failure() ? TextOf(result.failure())
                        : result.has_value() ? TextOf(result.value()).substr(0, 60)
                                             : "no value"));
    }
    for (const v1::TaskToken& token : message.released()) {
      Note(absl::StrCat("stream ", stream, " hands back ", TextOf(token)));
    }
  }
  process_->engine().OnWorkerMessage(stream,
                                     std::make_unique<v1::ConnectRequest>(std::move(message)));
  process_->Poke();
}

void Simulation::OnMessage(engine::StreamId stream, ArenaPtr<v1::ConnectResponse> message) {
  digest_ = Hash(message->SerializeAsString(), digest_);
  const auto it = links_.find(stream);
  for (const v1::Task& task : message->tasks()) {
    if (verbose()) {
      Note(absl::StrCat("stream ", stream, " is given ", task.workflow_id(), " ", task.step(),
                        " attempt ", task.attempt(), ", ", TextOf(task.token())));
    }
    ledger_.HandedOut(task);
  }
  for (const v1::ResultAck& ack : message->acks()) {
    if (!verbose()) break;
    Note(absl::StrCat("stream ", stream, " is told ", v1::AckStatus_Name(ack.status()), " ",
                      ack.detail(), " of ", TextOf(ack.token())));
  }
  for (const v1::CancelTask& cancel : message->cancels()) {
    if (!verbose()) break;
    Note(absl::StrCat("stream ", stream, " is told to stop (", cancel.reason(), ") ",
                      TextOf(cancel.token())));
  }
  if (it == links_.end() || it->second.broken) return;
  Link& link = it->second;
  const auto shared = std::make_shared<const v1::ConnectResponse>(std::move(*message));
  const auto deliver = [this, stream, shared] { ArriveAtWorker(stream, *shared); };
  if (!shared->has_welcome() && Strikes(plan_.double_permille)) {
    timeline_.After(2 * Delay(), deliver);
  }
  int64_t at = std::max(timeline_.now_us() + Delay(), link.down_at_us);
  if (!shared->has_welcome() && Strikes(plan_.reorder_permille)) {
    at += 10 * Delay();
  } else {
    link.down_at_us = at;
  }
  timeline_.At(at, deliver);
}

void Simulation::ArriveAtWorker(engine::StreamId stream, const v1::ConnectResponse& message) {
  const auto it = links_.find(stream);
  if (it == links_.end() || it->second.broken) return;
  it->second.worker->OnMessage(stream, message);
}

void Simulation::WorkerNotices(engine::StreamId stream, int64_t after_us) {
  timeline_.After(after_us, [this, stream] {
    const auto it = links_.find(stream);
    if (it == links_.end()) return;
    SimWorker* worker = it->second.worker;
    links_.erase(it);
    worker->OnStreamGone(stream);
  });
}

void Simulation::BreakStream(engine::StreamId stream) {
  const auto it = links_.find(stream);
  if (it == links_.end() || it->second.broken) return;
  it->second.broken = true;
  if (!Strikes(250)) {
    timeline_.After(dice_.Between(1, kNoticeUs), [this, stream] {
      if (!process_->up()) return;
      process_->engine().OnWorkerClosed(stream);
      process_->Poke();
    });
  }
  WorkerNotices(stream, dice_.Between(1, kNoticeUs));
}

void Simulation::OnClose(engine::StreamId stream, const absl::Status& why) {
  Note(absl::StrCat("fluxd closes stream ", stream, ": ", why.ToString()));
  const auto it = links_.find(stream);
  if (it == links_.end()) return;
  // What was sent before it arrives first.
  const int64_t after_us = std::max<int64_t>(it->second.down_at_us - timeline_.now_us(), 0);
  WorkerNotices(stream, after_us + Delay());
  timeline_.After(Delay(), [this, stream] {
    if (!process_->up()) return;
    process_->engine().OnWorkerClosed(stream);
    process_->Poke();
  });
}

void Simulation::OnDown() {
  for (auto& [stream, link] : links_) {
    if (link.broken) continue;
    link.broken = true;
    WorkerNotices(stream, dice_.OneIn(4) ? dice_.Between(1, kNoticeUs) : Delay());
  }
}

}  // namespace flux::sim
