// A dispatcher with a host that remembers what it was asked, and clocks moved by hand.
#ifndef FLUX_TESTS_DISPATCH_FIXTURE_H_
#define FLUX_TESTS_DISPATCH_FIXTURE_H_

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/dispatch/dispatcher.h"
#include "proto/arena_message.h"
#include "proto/bridge.h"

namespace flux::engine {

inline constexpr uint32_t kIncarnation = 7;

inline RunId RunOf(uint64_t n) { return {n, 0}; }
inline DeliveryKey Key(uint64_t run, uint32_t step, uint64_t delivery = 1) {
  return {RunOf(run), {0, step}, delivery};
}
inline v1::TaskToken Token(const DeliveryKey& key, uint32_t incarnation = kIncarnation) {
  v1::TaskToken token;
  token.set_incarnation(incarnation);
  token.set_run_id(key.run.Bytes());
  token.set_frame(key.step.frame);
  token.set_step(key.step.step);
  token.set_generation(3);
  token.set_delivery(key.delivery);
  token.set_shard(5);
  return token;
}
inline DeliveryKey KeyOf(const v1::TaskToken& token) {
  return {*RunId::FromBytes(token.run_id()), {token.frame(), token.step()}, token.delivery()};
}
// "run/step/delivery", readable in failures.
inline std::string Text(const DeliveryKey& key) {
  return std::to_string(key.run.high) + "/" + std::to_string(key.step.step) + "/" +
         std::to_string(key.delivery);
}

class FakeHost : public DispatchHost {
 public:
  struct Ended {
    std::string key;
    AttemptEnd reason;
    std::string progress;
    std::string worker;
    bool operator==(const Ended&) const = default;
  };

  bool BuildTask(const DeliveryKey& key, v1::Task* task) override {
    if (unwanted.contains(Text(key))) return false;
    *task->mutable_token() = Token(key);
    task->set_name("t");
    task->add_inputs()->mutable_payload()->set_data(std::string(input_bytes, 'x'));
    return true;
  }
  void Send(StreamId stream, ArenaPtr<v1::ConnectResponse> message) override {
    sent[stream].push_back(*message);
  }
  void Close(StreamId stream, absl::Status why) override { closed.emplace_back(stream, why); }
  void EndAttempt(const DeliveryKey& key, AttemptEnd reason, const v1::Payload& progress,
                  const std::string& worker_id) override {
    ended.push_back({Text(key), reason, progress.data(), worker_id});
    log.push_back("end " + Text(key));
  }
  void Redeliver(const DeliveryKey& key, const std::string& reason) override {
    redelivered.push_back(Text(key) + " " + reason);
    log.push_back("redeliver " + Text(key));
  }
  void CheckClaim(const DeliveryKey& key) override { checks.push_back(Text(key)); }
  void RecordSession(v1::SessionChange change) override {
    log.push_back((change.closed() ? "close " : "open ") + change.session_id());
    sessions.push_back(std::move(change));
  }
  void Refill(const std::string& queue, const std::map<std::string, size_t>& tasks) override {
    refills.push_back(queue);
    for (const auto& [task, count] : tasks) {
      absl::StrAppend(&refills.back(), " ", task, ":", count);
    }
  }

  std::map<StreamId, std::vector<v1::ConnectResponse>> sent;
  std::vector<std::pair<StreamId, absl::Status>> closed;
  std::vector<Ended> ended;
  std::vector<std::string> redelivered;
  std::vector<std::string> checks;
  std::vector<v1::SessionChange> sessions;
  std::vector<std::string> refills;  // "queue task:count…"
  std::vector<std::string> log;      // of what is made durable, in order
  std::set<std::string> unwanted;
  size_t input_bytes = 1;
};

struct HelloOptions {
  std::string session = "s1";
  std::string queue = "q";
  std::vector<std::string> tasks = {"t"};
  uint32_t slots = 4;
  uint32_t credit = 0;
  std::vector<v1::RunningTask> running = {};
};

class DispatchTest : public ::testing::Test {
 protected:
  DispatchTest() { Start(); }

  void Start() {
    options_.incarnation = kIncarnation;
    dispatcher_ = std::make_unique<Dispatcher>(options_, &host_);
  }

  v1::TaskStep Step(const std::string& task = "t", const std::string& queue = "q") {
    v1::TaskStep step;
    step.set_task(task);
    step.set_queue(queue);
    step.mutable_timeouts()->set_start_to_close_ms(300'000);
    return step;
  }

  OfferOutcome OfferStep(const DeliveryKey& key, const v1::TaskStep& step, bool maybe = false,
                         std::string_view limit_key = {}, DisplacedTask* displaced = nullptr) {
    TaskOffer offer;
    offer.key = key.step;
    offer.delivery = key.delivery;
    offer.attempt = 1;
    offer.scheduled_ms = now_.wall_ms;
    offer.task = &step;
    return dispatcher_->Offer(key.run, offer, maybe, now_, limit_key, displaced);
  }
  // So many executions more have the task on disk alone.
  void Spill(const std::string& task, int64_t delta) {
    dispatcher_->SetSpilled("q", delta);
    dispatcher_->SetTaskSpilled("q", task, delta);
  }
  OfferOutcome Offer(const DeliveryKey& key, bool maybe = false) {
    return OfferStep(key, Step(), maybe);
  }

  static v1::WorkerHello MakeHello(const HelloOptions& options) {
    v1::WorkerHello hello;
    hello.set_worker_id("worker-" + options.session);
    hello.set_session_id(options.session);
    hello.set_queue(options.queue);
    for (const std::string& task : options.tasks) hello.add_tasks(task);
    hello.set_slots(options.slots);
    hello.set_sdk_version("cpp/1");
    for (const v1::RunningTask& running : options.running) *hello.add_running() = running;
    return hello;
  }
  void Hello(StreamId stream, const HelloOptions& options) {
    const absl::Status status =
        dispatcher_->Hello(stream, "peer:" + std::to_string(stream), MakeHello(options), now_);
    ASSERT_TRUE(status.ok()) << status;
    if (options.credit > 0) {
      ASSERT_TRUE(dispatcher_->Credit(stream, options.credit, now_).ok());
    }
  }

  void Advance(int64_t ms) {
    now_.monotonic_ms += ms;
    now_.wall_ms += ms;
  }
  // Moves on in steps that keep the given streams alive, firing what is due.
  void Pass(int64_t ms, const std::vector<StreamId>& alive = {}) {
    for (int64_t end = now_.monotonic_ms + ms; now_.monotonic_ms < end;) {
      Advance(std::min<int64_t>(1000, end - now_.monotonic_ms));
      for (const StreamId stream : alive) dispatcher_->Alive(stream, now_);
      dispatcher_->Tick(now_);
      dispatcher_->Flush(now_);
    }
  }
  void Flush() { dispatcher_->Flush(now_); }

  // Tasks sent to the stream since the last call, as "run/step/delivery".
  std::vector<std::string> Tasks(StreamId stream) {
    std::vector<std::string> tasks;
    for (const v1::ConnectResponse& message : host_.sent[stream]) {
      for (const v1::Task& task : message.tasks()) tasks.push_back(Text(KeyOf(task.token())));
    }
    host_.sent[stream].clear();
    return tasks;
  }
  std::vector<std::string> Handed(StreamId stream) {
    Flush();
    return Tasks(stream);
  }
  // "run/step/delivery reason"
  std::vector<std::string> Cancels(StreamId stream) {
    std::vector<std::string> cancels;
    for (const v1::ConnectResponse& message : host_.sent[stream]) {
      for (const v1::CancelTask& cancel : message.cancels()) {
        cancels.push_back(Text(KeyOf(cancel.token())) + " " + cancel.reason());
      }
    }
    host_.sent[stream].clear();
    return cancels;
  }
  std::string Why(const DeliveryKey& key, const std::string& task = "t",
                  const std::string& queue = "q") {
    return dispatcher_->Look(key, Step(task, queue)).reason;
  }
  static v1::RunningTask Running(const DeliveryKey& key, int64_t elapsed_ms = 0,
                                 uint32_t incarnation = kIncarnation) {
    v1::RunningTask running;
    *running.mutable_token() = Token(key, incarnation);
    running.set_elapsed_ms(elapsed_ms);
    return running;
  }
  static v1::SessionChange Listed(const std::string& session, const std::string& queue = "q",
                                  const std::vector<std::string>& tasks = {"t"}) {
    v1::SessionChange change;
    change.set_session_id(session);
    change.set_worker_id("worker-" + session);
    change.set_queue(queue);
    for (const std::string& task : tasks) change.add_tasks(task);
    return change;
  }

  DispatchOptions options_;
  FakeHost host_;
  std::unique_ptr<Dispatcher> dispatcher_;
  DispatchNow now_{.monotonic_ms = 1'000'000, .wall_ms = 1'700'000'000'000};
};

using Strings = std::vector<std::string>;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

}  // namespace flux::engine

#endif  // FLUX_TESTS_DISPATCH_FIXTURE_H_
