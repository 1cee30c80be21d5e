// A simulated worker: keeps what it was given until it is acknowledged, claims it after a
// reconnect, and dies, hangs, dawdles and lies as the plan of faults says.
#ifndef FLUX_TESTS_SIM_WORKER_H_
#define FLUX_TESTS_SIM_WORKER_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "engine/dispatch/dispatcher.h"
#include "flux/v1/worker.pb.h"
#include "tests/sim/script.h"

namespace flux::sim {

class Simulation;

// Not thread-safe. Owned by its simulation.
class SimWorker {
 public:
  struct Options {
    std::string id;
    std::string queue;
    std::vector<std::string> tasks;
    uint32_t slots = 2;
    uint32_t prefetch = 1;  // tasks it takes beyond those it runs
  };
  SimWorker(Simulation* simulation, Options options);

  void Start() { Connect(); }
  // Arrived over the stream; ignored unless it is the present one.
  void OnMessage(engine::StreamId stream, const v1::ConnectResponse& message);
  void OnStreamGone(engine::StreamId stream);
  // It forgets everything and comes back as another session.
  void Die();
  // It finishes what it runs, hands back the rest, and comes back as another session.
  void Drain();
  engine::StreamId stream() const { return stream_; }

 private:
  enum class State : uint8_t { kQueued, kRunning, kFinished };
  struct Held {
    v1::Task task;
    State state = State::kQueued;
    int64_t since_us = 0;  // when it was received, or begun
    bool hangs = false;
    v1::TaskResult result;
  };

  void Connect();
  void ConnectLater();
  void Restart(int64_t after_us);
  void Accept(const v1::Task& task);
  void RunSome();
  void Begin(const std::string& token, Held* held);
  void Finish(const std::string& token);
  v1::TaskResult ResultOf(const v1::Task& task);
  void Garble(const v1::Task& task, v1::TaskResult* result);
  void Heartbeat(const std::string& token);
  void Acknowledged(const v1::ResultAck& ack);
  void Cancelled(const v1::CancelTask& cancel);
  // Sends something that must not count.
  void Lie(const v1::TaskToken& token);
  void GrantCredit();
  void Send(v1::ConnectRequest message);
  void MaybeDrained();

  Simulation& sim_;
  const Options options_;
  uint64_t session_ = 0;  // counts them; events of an earlier one do nothing
  engine::StreamId stream_ = 0;
  bool welcomed_ = false;
  bool draining_ = false;
  uint32_t credit_ = 0;  // granted and not used
  uint32_t running_ = 0;
  std::map<std::string, Held> held_;  // by serialised token
  std::vector<std::string> queue_;    // tokens, in order of arrival
};

}  // namespace flux::sim

#endif  // FLUX_TESTS_SIM_WORKER_H_
