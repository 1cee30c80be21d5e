// Random workers, breaks, deaths and restarts against one dispatcher and a plain model of the core.
// Whatever happens: no token is handed out twice, limits hold, and once the faults stop every task
// gets done.
#include <cstdlib>
#include <random>

#include "proto/arena_message.h"
#include "tests/dispatch/fixture.h"

namespace flux::engine {
namespace {

constexpr size_t kTasks = 80;
constexpr size_t kWorkers = 4;
constexpr size_t kActions = 1'500;
constexpr uint32_t kLimit = 3;     // of queue "b"
constexpr uint32_t kKeyLimit = 2;  // of each key of queue "c"

class World : public DispatchHost {
 public:
  explicit World(uint64_t seed) : random_(seed) {
    const char* queues[] = {"a", "b", "c"};
    for (size_t i = 0; i < kTasks; ++i) {
      Task task;
      task.key = {RunOf(1 + i / 8), {0, static_cast<uint32_t>(i % 8)}, 1};
      task.step.set_task(i % 5 == 0 ? "u" : "t");
      task.step.set_queue(queues[i % 3]);
      task.step.set_priority(static_cast<int32_t>(i % 2));
      task.step.mutable_timeouts()->set_start_to_close_ms(20'000);
      task.step.mutable_timeouts()->set_schedule_to_start_ms(i % 7 == 0 ? 15'000 : 0);
      task.limit_key = i % 4 == 0 ? "" : "key" + std::to_string(i % 4);
      tasks_.push_back(task);
    }
    for (size_t i = 0; i < kWorkers; ++i) {
      Worker worker;
      worker.queue = queues[i % 3];
      workers_.push_back(worker);
    }
    Restart();
  }

  void RunStorm() {
    for (size_t i = 0; i < kActions; ++i) {
      Act(Pick(100));
      Turn();
      if (::testing::Test::HasFailure()) return;
    }
    // Faults stop: one worker a queue that has everything, and time.
    for (int turn = 0; turn < 3'000 && Left() > 0; ++turn) {
      for (Worker& worker : workers_) {
        if (worker.stream == 0) Connect(worker);
        Receive(worker);
        while (!worker.running.empty()) Finish(worker);
      }
      Advance(200);
      Turn();
      if (::testing::Test::HasFailure()) return;
    }
    EXPECT_EQ(Left(), 0u);
    for (Worker& worker : workers_) {
      Receive(worker);
      EXPECT_TRUE(worker.running.empty());
    }
    Turn();
    const DispatchStats stats = dispatcher_->stats();
    EXPECT_EQ(stats.ready + stats.running + stats.held_for_grace, 0u);
  }

  uint64_t displaced() const { return displaced_; }

  // ---- DispatchHost ----
  bool BuildTask(const DeliveryKey& key, v1::Task* task) override {
    Task& wanted = Find(key);
    if (wanted.done || wanted.key != key) return false;
    EXPECT_TRUE(handed_.insert(key).second) << Text(key) << " was handed out twice";
    *task->mutable_token() = Token(key);
    task->set_name(wanted.step.task());
    return true;
  }
  void Send(StreamId stream, ArenaPtr<v1::ConnectResponse> message) override {
    for (Worker& worker : workers_) {
      if (worker.stream == stream) worker.inbox.push_back(std::move(*message));
    }
  }
  void Close(StreamId stream, absl::Status) override {
    for (Worker& worker : workers_) {
      if (worker.stream == stream) worker.stream = 0;
    }
  }
  void EndAttempt(const DeliveryKey& key, AttemptEnd, const v1::Payload&,
                  const std::string&) override {
    again_.push_back(key);
  }
  void Redeliver(const DeliveryKey& key, const std::string&) override { again_.push_back(key); }
  void CheckClaim(const DeliveryKey& key) override { checks_.push_back(key); }
  void RecordSession(v1::SessionChange change) override {
    if (change.closed()) {
      durable_.erase(change.session_id());
    } else {
      durable_[change.session_id()] = std::move(change);
    }
  }
  void Refill(const std::string& queue, const std::map<std::string, size_t>& tasks) override {
    refills_.emplace_back(queue, tasks);
  }

 private:
  struct Task {
    DeliveryKey key;  // with its current delivery
    v1::TaskStep step;
    std::string limit_key;
    bool done = false;
    bool on_disk = false;
    uint64_t granted_in = 0;  // process in which the delivery was granted
  };
  struct Worker {
    std::string queue;
    std::string session;
    StreamId stream = 0;
    std::vector<DeliveryKey> running;
    std::set<DeliveryKey> finished;  // not acked
    std::vector<v1::ConnectResponse> inbox;
  };

  uint64_t Pick(uint64_t below) { return random_() % below; }
  Task& Find(const DeliveryKey& key) { return tasks_[(key.run.high - 1) * 8 + key.step.step]; }
  size_t Left() const {
    size_t left = 0;
    for (const Task& task : tasks_) left += !task.done;
    return left;
  }
  void Advance(int64_t ms) {
    now_.monotonic_ms += ms;
    now_.wall_ms += ms;
  }

  void Offer(Task& task) {
    TaskOffer offer;
    offer.key = task.key.step;
    offer.delivery = task.key.delivery;
    offer.scheduled_ms = now_.wall_ms;
    offer.task = &task.step;
    DisplacedTask displaced;
    const OfferOutcome outcome = dispatcher_->Offer(task.key.run, offer, task.granted_in < process_,
                                                    now_, task.limit_key, &displaced);
    PutOnDisk(task, outcome == OfferOutcome::kSpilled);
    if (outcome != OfferOutcome::kDisplaced) return;
    Task& other = Find(displaced.key);
    EXPECT_EQ(other.key, displaced.key);
    if (other.step.task() == task.step.task()) {
      EXPECT_LT(other.step.priority(), task.step.priority());
    }
    PutOnDisk(other, true);
    ++displaced_;
  }

  void PutOnDisk(Task& task, bool on_disk) {
    if (on_disk != task.on_disk) {
      dispatcher_->SetSpilled(task.step.queue(), on_disk ? 1 : -1);
      dispatcher_->SetTaskSpilled(task.step.queue(), task.step.task(), on_disk ? 1 : -1);
    }
    task.on_disk = on_disk;
  }

  void Restart() {
    ++process_;
    DispatchOptions options;
    options.incarnation = kIncarnation;
    options.queue_limits["b"] = {.concurrency_max = kLimit};
    options.queue_limits["c"] = {.rate_permille_per_s = 4'000, .per_key_concurrency = kKeyLimit};
    options.ready_per_queue_max = 12;
    options.refill_below = 6;
    options.ready_floor = 2;
    options.tasks_per_message_max = 3;
    dispatcher_ = std::make_unique<Dispatcher>(options, this);
    again_.clear();
    checks_.clear();
    refills_.clear();
    for (Worker& worker : workers_) {
      worker.stream = 0;
      worker.inbox.clear();
    }
    std::vector<v1::SessionChange> sessions;
    for (const auto& [id, change] : durable_) sessions.push_back(change);
    dispatcher_->Restore(sessions, now_);
    for (Task& task : tasks_) {
      task.on_disk = false;
      if (!task.done) Offer(task);
    }
  }

  void Connect(Worker& worker) {
    if (worker.session.empty()) worker.session = "s" + std::to_string(++sessions_made_);
    v1::WorkerHello hello;
    hello.set_worker_id("w-" + worker.session);
    hello.set_session_id(worker.session);
    hello.set_queue(worker.queue);
    hello.add_tasks("t");
    hello.add_tasks("u");
    hello.set_slots(4);
    for (const DeliveryKey& key : worker.running) {
      *hello.add_running()->mutable_token() = Token(key);
    }
    for (const DeliveryKey& key : worker.finished) {
      v1::RunningTask* running = hello.add_running();
      *running->mutable_token() = Token(key);
      running->set_finished(true);
    }
    worker.stream = ++streams_made_;
    worker.inbox.clear();
    const absl::Status status = dispatcher_->Hello(worker.stream, "p", hello, now_);
    ASSERT_TRUE(status.ok()) << status;
    ASSERT_TRUE(dispatcher_->Credit(worker.stream, 4, now_).ok());
    const std::set<DeliveryKey> again = worker.finished;
    for (const DeliveryKey& key : again) Result(worker, key);
  }

  void Receive(Worker& worker) {
    std::vector<v1::ConnectResponse> inbox;
    inbox.swap(worker.inbox);
    for (const v1::ConnectResponse& message : inbox) {
      for (const v1::Task& task : message.tasks()) worker.running.push_back(KeyOf(task.token()));
      for (const v1::ResultAck& ack : message.acks()) worker.finished.erase(KeyOf(ack.token()));
      for (const v1::CancelTask& cancel : message.cancels()) {
        std::erase(worker.running, KeyOf(cancel.token()));
        worker.finished.erase(KeyOf(cancel.token()));
      }
    }
    if (worker.stream != 0) dispatcher_->Alive(worker.stream, now_);
  }

  void Result(Worker& worker, const DeliveryKey& key) {
    dispatcher_->ResultArrived(worker.stream, key, false);
    Task& task = Find(key);
    if (task.key == key && !task.done) {
      task.done = true;
      PutOnDisk(task, false);
    }
    dispatcher_->Ack(worker.stream, Token(key), v1::ACK_STATUS_UNSPECIFIED, "");
  }

  void Finish(Worker& worker) {
    if (worker.running.empty()) return;
    const size_t i = Pick(worker.running.size());
    const DeliveryKey key = worker.running[i];
    worker.running.erase(worker.running.begin() + static_cast<ptrdiff_t>(i));
    worker.finished.insert(key);
    if (worker.stream == 0) return;
    Result(worker, key);
    ASSERT_TRUE(dispatcher_->Credit(worker.stream, 1, now_).ok());
  }

  void Break(Worker& worker) {
    if (worker.stream == 0) return;
    const StreamId stream = worker.stream;
    worker.stream = 0;
    worker.inbox.clear();
    if (Pick(2) == 0) dispatcher_->StreamClosed(stream, now_);  // else it is found silent
  }

  void Act(uint64_t what) {
    Worker& worker = workers_[Pick(kWorkers)];
    if (what < 20) {
      if (worker.stream == 0) Connect(worker);
    } else if (what < 50) {
      Receive(worker);
    } else if (what < 75) {
      Finish(worker);
    } else if (what < 80) {
      Break(worker);
    } else if (what < 82) {
      Break(worker);
      worker.running.clear();
      worker.finished.clear();
      worker.session.clear();
    } else if (what < 84) {
      if (worker.stream != 0 && !worker.running.empty()) {
        dispatcher_->Released(worker.stream, worker.running.back());
        worker.running.pop_back();
      }
    } else if (what < 85) {
      Task& task = tasks_[Pick(kTasks)];
      if (!task.done) {  // as an operator's rewind: fenced, and scheduled again
        dispatcher_->Withdraw(task.key, "cancelled");
        again_.push_back(task.key);
      }
    } else if (what < 86) {
      Restart();
    } else {
      Advance(static_cast<int64_t>(Pick(1'500)));
    }
  }

  // One turn of the loop, with what its commands led to.
  void Turn() {
    dispatcher_->Tick(now_);
    while (!again_.empty() || !checks_.empty() || !refills_.empty()) {
      std::vector<DeliveryKey> again;
      again.swap(again_);
      for (const DeliveryKey& key : again) {
        Task& task = Find(key);
        if (task.done || task.key != key) continue;
        ++task.key.delivery;
        task.granted_in = process_;
        Offer(task);
      }
      std::vector<DeliveryKey> checks;
      checks.swap(checks_);
      for (const DeliveryKey& key : checks) {
        Task& task = Find(key);
        const bool current = task.key == key && !task.done;
        if (current) Offer(task);
        dispatcher_->ClaimChecked(key, current);
      }
      std::vector<std::pair<std::string, std::map<std::string, size_t>>> refills;
      refills.swap(refills_);
      for (auto& [queue, left] : refills) {
        for (Task& task : tasks_) {
          if (!task.on_disk || task.done || task.step.queue() != queue) continue;
          const auto wanted = left.find(task.step.task());
          if (wanted == left.end() || wanted->second == 0) continue;
          --wanted->second;
          Offer(task);
        }
        dispatcher_->RefillDone(queue);
      }
    }
    dispatcher_->Flush(now_);
    v1::GetTaskQueueResponse queue;
    if (dispatcher_->DescribeQueue("b", &queue)) {
      EXPECT_LE(queue.queue().running(), kLimit);
    }
    std::map<std::string, uint32_t> by_key;
    for (const Task& task : tasks_) {
      if (task.step.queue() == "c" && !task.limit_key.empty() &&
          dispatcher_->Look(task.key, task.step).running) {
        EXPECT_LE(++by_key[task.limit_key], kKeyLimit) << task.limit_key;
      }
    }
  }

  std::mt19937_64 random_;
  DispatchNow now_{.monotonic_ms = 5'000, .wall_ms = 1'700'000'000'000};
  uint64_t process_ = 0;
  uint64_t streams_made_ = 0;
  uint64_t sessions_made_ = 0;
  uint64_t displaced_ = 0;
  std::vector<Task> tasks_;
  std::vector<Worker> workers_;
  std::set<DeliveryKey> handed_;
  std::map<std::string, v1::SessionChange> durable_;
  std::vector<DeliveryKey> again_;
  std::vector<DeliveryKey> checks_;
  std::vector<std::pair<std::string, std::map<std::string, size_t>>> refills_;
  std::unique_ptr<Dispatcher> dispatcher_;
};

TEST(Storm, NothingIsStuckLostOrHandedOutTwice) {
  // FLUX_STORM_SEEDS=1000 runs more of them.
  const char* more = std::getenv("FLUX_STORM_SEEDS");
  const uint64_t seeds = more != nullptr ? std::strtoull(more, nullptr, 10) : 40;
  uint64_t displaced = 0;
  for (uint64_t seed = 1; seed <= seeds; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    World world(seed);
    world.RunStorm();
    if (::testing::Test::HasFailure()) return;
    displaced += world.displaced();
  }
  EXPECT_GT(displaced, 0u);
}

}  // namespace
}  // namespace flux::engine
