#include "bench/workloads.h"

#include <fcntl.h>
#include <grpcpp/grpcpp.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "bench/asker.h"
#include "bench/process.h"
#include "bench/shared.h"
#include "flux/client.h"
#include "flux/v1/admin.grpc.pb.h"
#include "flux/v1/workflow.grpc.pb.h"
#include "proto/bridge.h"

namespace flux::bench {
namespace {

// Above this many steps a chain is a loop of one task, as anybody would write it; below, a graph of
// so many tasks.
constexpr uint64_t kGraphStepsMax = 10'000;
constexpr double kWarmUpSeconds = 1.5;

void Sleep(double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }

// Shared memory that children inherit.
class SharedMemory {
 public:
  SharedMemory() : fd_(memfd_create("flux-bench", 0)) {
    if (fd_ >= 0 && ftruncate(fd_, sizeof(Shared)) == 0) shared_ = Shared::Map(fd_);
  }
  ~SharedMemory() {
    if (shared_ != nullptr) munmap(shared_, sizeof(Shared));
    if (fd_ >= 0) close(fd_);
  }
  SharedMemory(const SharedMemory&) = delete;
  Shared* get() const { return shared_; }
  std::string fd() const { return std::to_string(fd_); }

 private:
  int fd_;
  Shared* shared_ = nullptr;
};

// A coordinator on a temporary directory, with or without a worker.
class System {
 public:
  absl::Status Start() {
    FLUX_RETURN_IF_ERROR(StartCoordinator());
    return absl::OkStatus();
  }
  absl::Status StartCoordinator() {
    const std::string port_file = directory.path() + "/port";
    unlink(port_file.c_str());
    FLUX_ASSIGN_OR_RETURN(
        coordinator, Process::Start(Beside("fluxd"),
                                    {"--data", directory.path() + "/data", "--listen",
                                     "127.0.0.1:0", "--port-file", port_file, "--log-level",
                                     "warning", "--reserve-bytes", "0", "--ballast-bytes", "0"}));
    FLUX_ASSIGN_OR_RETURN(int port, WaitForPort(port_file, coordinator, absl::Seconds(60)));
    address = absl::StrCat("127.0.0.1:", port);
    grpc::ChannelArguments arguments;
    arguments.SetInt("fresh", port);  // not the connection of a coordinator before
    auto channel =
        grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
    workflows = v1::WorkflowService::NewStub(channel);
    admin = v1::AdminService::NewStub(channel);
    return absl::OkStatus();
  }
  absl::Status StartWorker(uint32_t slots) {
    FLUX_ASSIGN_OR_RETURN(worker, Process::Start(Beside("flux-bench"),
                                                 {"worker", "--address", address, "--shared-fd",
                                                  memory.fd(), "--slots", std::to_string(slots)}));
    return absl::OkStatus();
  }
  absl::Status Put(const v1::Definition& definition) {
    grpc::ClientContext context;
    v1::PutDefinitionRequest request;
    *request.mutable_definition() = definition;
    v1::PutDefinitionResponse response;
    const grpc::Status status = workflows->PutDefinition(&context, request, &response);
    if (status.ok()) return absl::OkStatus();
    return absl::InternalError(absl::StrCat("PutDefinition: ", status.error_message()));
  }
  absl::StatusOr<v1::GetServerInfoResponse> Info() {
    grpc::ClientContext context;
    context.set_wait_for_ready(true);
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
    v1::GetServerInfoResponse response;
    const grpc::Status status = admin->GetServerInfo(&context, {}, &response);
    if (!status.ok()) {
      return absl::InternalError(absl::StrCat("GetServerInfo: ", status.error_message()));
    }
    return response;
  }
  uint64_t DiskBytes() const { return directory.BytesOnDisk(); }
  Shared& shared() { return *memory.get(); }

  TemporaryDirectory directory;  // removed last: the processes below write into it
  SharedMemory memory;
  Process coordinator;
  Process worker;
  std::string address;
  std::unique_ptr<v1::WorkflowService::Stub> workflows;
  std::unique_ptr<v1::AdminService::Stub> admin;
};

v1::Definition EmptyDefinition(const std::string& name) {
  v1::Definition definition;
  definition.set_name(name);
  definition.set_version("1");
  definition.set_format(1);
  return definition;
}

void AddTask(v1::Scope* scope, const std::string& name, int64_t from_step) {
  v1::Step* step = scope->add_steps();
  step->set_name(name);
  step->mutable_task()->set_task("bench.step");
  if (from_step < 0) {
    step->add_inputs()->set_parameter(0);
  } else {
    step->add_inputs()->set_step(static_cast<uint32_t>(from_step));
  }
}

v1::Definition ChainDefinition(uint64_t steps) {
  v1::Definition definition = EmptyDefinition("bench.chain");
  v1::Scope* scope = definition.add_scopes();
  scope->set_parameters(1);
  if (steps <= kGraphStepsMax) {
    for (uint64_t i = 0; i < steps; ++i) {
      AddTask(scope, absl::StrCat("s", i), static_cast<int64_t>(i) - 1);
    }
    scope->mutable_result()->set_step(static_cast<uint32_t>(steps - 1));
    return definition;
  }
  v1::Step* loop = scope->add_steps();
  loop->set_name("loop");
  loop->add_inputs()->set_parameter(0);
  loop->mutable_loop()->set_body(1);
  loop->mutable_loop()->set_turns(steps);
  scope->mutable_result()->set_step(0);
  v1::Scope* body = definition.add_scopes();
  body->set_parameters(1);
  AddTask(body, "step", -1);
  body->mutable_result()->set_step(0);
  return definition;
}

v1::Definition MapDefinition(uint32_t max_parallel) {
  v1::Definition definition = EmptyDefinition("bench.map");
  v1::Scope* scope = definition.add_scopes();
  scope->set_parameters(1);
  v1::Step* map = scope->add_steps();
  map->set_name("map");
  map->add_inputs()->set_parameter(0);
  map->mutable_map()->set_body(1);
  map->mutable_map()->set_max_parallel(max_parallel);
  scope->mutable_result()->set_step(0);
  v1::Scope* body = definition.add_scopes();
  body->set_parameters(1);
  AddTask(body, "item", -1);
  body->mutable_result()->set_step(0);
  return definition;
}

// Done as it starts.
v1::Definition NothingDefinition() {
  v1::Definition definition = EmptyDefinition("bench.nothing");
  v1::Scope* scope = definition.add_scopes();
  scope->set_parameters(1);
  scope->mutable_result()->set_parameter(0);
  return definition;
}

v1::Definition NapDefinition() {
  v1::Definition definition = EmptyDefinition("bench.nap");
  v1::Scope* scope = definition.add_scopes();
  scope->set_parameters(1);
  v1::Step* sleep = scope->add_steps();
  sleep->set_name("nap");
  sleep->mutable_sleep()->set_duration_ms(3'600'000);
  scope->mutable_result()->set_parameter(0);
  return definition;
}

Payload BytesPayload(uint32_t bytes) {
  Payload payload;
  payload.encoding = Encoding::kBytes;
  payload.data = std::string(bytes, 'x');
  return payload;
}

// What a measured window saw.
struct Window {
  uint64_t steps = 0;
  double seconds = 0;
  double p50_ms = 0;
  double p99_ms = 0;
  double coordinator_cpu = 0;
  double worker_cpu = 0;
  uint64_t resident_max = 0;
  uint64_t disk_bytes = 0;  // ceiling: at its end, of `all_steps`
  uint64_t all_steps = 0;
};

class Meter {
 public:
  explicit Meter(System* system) : system_(system) {
    steps_ = system->shared().steps.load();
    latency_ = system->shared().latency.Read();
    coordinator_cpu_ = system->coordinator.CpuSeconds();
    worker_cpu_ = system->worker.CpuSeconds();
    began_ns_ = NowNs();
  }
  Window Read() const {
    Window window;
    window.seconds = static_cast<double>(NowNs() - began_ns_) / 1e9;
    window.steps = system_->shared().steps.load() - steps_;
    auto latency = system_->shared().latency.Read();
    for (size_t i = 0; i < latency.size(); ++i) latency[i] -= latency_[i];
    window.p50_ms = Histogram::QuantileMs(latency, 0.5);
    window.p99_ms = Histogram::QuantileMs(latency, 0.99);
    window.coordinator_cpu = system_->coordinator.CpuSeconds() - coordinator_cpu_;
    window.worker_cpu = system_->worker.CpuSeconds() - worker_cpu_;
    window.resident_max = system_->coordinator.ResidentBytes();
    return window;
  }

 private:
  System* const system_;
  uint64_t steps_;
  std::array<uint64_t, Histogram::kBuckets> latency_;
  double coordinator_cpu_;
  double worker_cpu_;
  int64_t began_ns_;
};

Answer Describe(const std::string& workload, const Options& options, const Window& window,
                uint64_t disk_bytes, uint64_t all_steps) {
  Answer answer;
  const double million = std::max<double>(static_cast<double>(window.steps), 1) / 1e6;
  const double rate = static_cast<double>(window.steps) / window.seconds;
  const auto round = [](double v, double unit) { return std::round(v / unit) * unit; };
  answer["workload"] = workload;
  answer["in_flight"] = options.in_flight;
  answer["steps"] = window.steps;
  answer["seconds"] = round(window.seconds, 0.001);
  answer["steps_per_s"] = round(rate, 1);
  answer["p50_ms"] = round(window.p50_ms, 0.0001);
  answer["p99_ms"] = round(window.p99_ms, 0.0001);
  answer["coordinator_cpu_s_per_million"] = round(window.coordinator_cpu / million, 0.001);
  answer["worker_cpu_s_per_million"] = round(window.worker_cpu / million, 0.001);
  answer["coordinator_rss_mib"] = round(static_cast<double>(window.resident_max) / (1 << 20), 0.1);
  answer["disk_bytes_per_step"] = round(
      static_cast<double>(disk_bytes) / std::max<double>(static_cast<double>(all_steps), 1), 0.1);
  return answer;
}

// On a machine with other work, processes may take their time to come up.
absl::Status AwaitFirstStep(System& system) {
  const absl::Time by = absl::Now() + absl::Seconds(60);
  while (system.shared().steps.load() == 0) {
    if (absl::Now() > by) return absl::DeadlineExceededError("no step was made in a minute");
    Sleep(0.01);
  }
  return absl::OkStatus();
}

absl::StatusOr<Window> MeasureCeiling(const Options& options, double seconds) {
  TemporaryDirectory directory;
  System system;
  const std::string port_file = directory.path() + "/port";
  FLUX_ASSIGN_OR_RETURN(
      system.coordinator,
      Process::Start(Beside("flux-bench"),
                     {"ceiling-server", "--data", directory.path() + "/data", "--port-file",
                      port_file, "--in-flight", std::to_string(options.in_flight),
                      "--payload-bytes", std::to_string(options.payload_bytes)}));
  FLUX_ASSIGN_OR_RETURN(int port, WaitForPort(port_file, system.coordinator, absl::Seconds(30)));
  FLUX_ASSIGN_OR_RETURN(system.worker,
                        Process::Start(Beside("flux-bench"), {"ceiling-worker", "--address",
                                                              absl::StrCat("127.0.0.1:", port),
                                                              "--shared-fd", system.memory.fd()}));
  FLUX_RETURN_IF_ERROR(AwaitFirstStep(system));
  Sleep(std::min(kWarmUpSeconds, seconds / 2 + 0.5));
  Meter meter(&system);
  Sleep(seconds);
  Window window = meter.Read();
  system.worker.Stop();
  system.coordinator.Stop();
  window.disk_bytes = directory.BytesOnDisk();
  window.all_steps = system.shared().steps.load();
  if (window.steps == 0) return absl::InternalError("the ceiling made no step");
  return window;
}

absl::Status AddCeiling(const Options& options, Answer* answer) {
  if (options.ceiling_seconds <= 0) return absl::OkStatus();
  FLUX_ASSIGN_OR_RETURN(Window ceiling, MeasureCeiling(options, options.ceiling_seconds));
  const double rate = static_cast<double>(ceiling.steps) / ceiling.seconds;
  (*answer)["ceiling_steps_per_s"] = std::round(rate);
  (*answer)["ratio"] = std::round((*answer)["steps_per_s"].get<double>() / rate * 1000) / 1000;
  (*answer)["ceiling_p50_ms"] = std::round(ceiling.p50_ms * 1e4) / 1e4;
  return absl::OkStatus();
}

// Keeps executions going: one a slot, the next when it has closed.
class Driver {
 public:
  Driver(Client client, std::string workflow, std::vector<Payload> inputs)
      : client_(std::move(client)), workflow_(std::move(workflow)), inputs_(std::move(inputs)) {}

  void Begin(uint32_t slots, bool once) {
    once_ = once;
    for (uint32_t slot = 0; slot < slots; ++slot) Next(slot, 0);
  }
  // No more executions after those under way.
  void End() {
    std::lock_guard lock(mutex_);
    ending_ = true;
  }
  absl::Status Wait(absl::Duration timeout) {
    std::unique_lock lock(mutex_);
    if (!idle_.wait_for(lock, absl::ToChronoNanoseconds(timeout), [this] { return open_ == 0; })) {
      return absl::DeadlineExceededError(absl::StrCat(open_, " executions have not ended"));
    }
    return failure_;
  }
  bool Idle() {
    std::lock_guard lock(mutex_);
    return open_ == 0;
  }

 private:
  void Next(uint32_t slot, uint64_t number) {
    {
      std::lock_guard lock(mutex_);
      if (ending_ || (once_ && number > 0) || !failure_.ok()) return;
      ++open_;
    }
    StartOptions start;
    start.id = absl::StrCat("b-", slot, "-", number);
    client_.StartRawAsync(workflow_, std::move(start), inputs_,
                          [this, slot, number](absl::StatusOr<RawRun> run) {
                            if (!run.ok()) return Ended(slot, number, run.status());
                            run->OnResult([this, slot, number](absl::StatusOr<Payload> result) {
                              Ended(slot, number, result.status());
                            });
                          });
  }
  void Ended(uint32_t slot, uint64_t number, const absl::Status& status) {
    {
      std::lock_guard lock(mutex_);
      if (!status.ok() && failure_.ok()) failure_ = status;
    }
    Next(slot, number + 1);
    std::lock_guard lock(mutex_);
    if (--open_ == 0) idle_.notify_all();
  }

  Client client_;
  const std::string workflow_;
  const std::vector<Payload> inputs_;
  std::mutex mutex_;
  std::condition_variable idle_;
  uint64_t open_ = 0;
  bool ending_ = false;
  bool once_ = false;
  absl::Status failure_;
};

}  // namespace

absl::StatusOr<Answer> RunCeiling(const Options& options) {
  FLUX_ASSIGN_OR_RETURN(Window window, MeasureCeiling(options, options.seconds));
  Answer answer = Describe("ceiling", options, window, window.disk_bytes, window.all_steps);
  answer["ceiling_steps_per_s"] = answer["steps_per_s"];
  answer["ratio"] = 1.0;
  return answer;
}

absl::StatusOr<Answer> RunChain(const Options& options) {
  const uint64_t steps = options.steps == 0 ? 100 : options.steps;
  System system;
  FLUX_RETURN_IF_ERROR(system.Start());
  FLUX_RETURN_IF_ERROR(system.Put(ChainDefinition(steps)));
  FLUX_RETURN_IF_ERROR(system.StartWorker(options.in_flight));
  FLUX_ASSIGN_OR_RETURN(Client client, Client::Connect(system.address));
  Driver driver(client, "bench.chain", {BytesPayload(options.payload_bytes)});
  driver.Begin(options.in_flight, options.once);

  Window window;
  std::vector<double> tenths;
  if (options.once) {
    // The whole of it is the window; the rate of each tenth shows whether a step costs more later
    // on.
    const uint64_t total = steps * options.in_flight;
    Meter meter(&system);
    uint64_t resident = 0;
    uint64_t done = 0;
    int64_t mark_ns = NowNs();
    uint64_t mark = 0;
    while (!driver.Idle()) {
      Sleep(0.005);
      resident = std::max(resident, system.coordinator.ResidentBytes());
      done = system.shared().steps.load();
      while (tenths.size() < 9 && done >= (tenths.size() + 1) * total / 10) {
        const int64_t now = NowNs();
        tenths.push_back(std::round(static_cast<double>(done - mark) * 1e9 /
                                    static_cast<double>(now - mark_ns)));
        mark = done;
        mark_ns = now;
      }
    }
    window = meter.Read();
    tenths.push_back(std::round(static_cast<double>(system.shared().steps.load() - mark) * 1e9 /
                                static_cast<double>(NowNs() - mark_ns)));
    window.resident_max = std::max(window.resident_max, resident);
  } else {
    FLUX_RETURN_IF_ERROR(AwaitFirstStep(system));
    Sleep(kWarmUpSeconds);
    Meter meter(&system);
    Sleep(options.seconds);
    window = meter.Read();
  }
  driver.End();
  FLUX_RETURN_IF_ERROR(driver.Wait(absl::Minutes(5)));
  Answer answer =
      Describe("chain", options, window, system.DiskBytes(), system.shared().steps.load());
  answer["chain_steps"] = steps;
  if (!tenths.empty()) {
    answer["tenths_steps_per_s"] = tenths;
    answer["last_over_second_tenth"] = std::round(tenths.back() / tenths[1] * 1000) / 1000;
  }
  system.worker.Stop();
  system.coordinator.Stop();
  FLUX_RETURN_IF_ERROR(AddCeiling(options, &answer));
  return answer;
}

absl::StatusOr<Answer> RunMap(const Options& options) {
  const uint64_t items = options.steps == 0 ? 100'000 : options.steps;
  System system;
  FLUX_RETURN_IF_ERROR(system.Start());
  FLUX_RETURN_IF_ERROR(system.Put(MapDefinition(options.in_flight)));
  FLUX_RETURN_IF_ERROR(system.StartWorker(options.in_flight));
  FLUX_ASSIGN_OR_RETURN(Client client, Client::Connect(system.address));
  const uint64_t idle_bytes = system.coordinator.ResidentBytes();

  v1::PayloadList list;
  for (uint64_t i = 0; i < items; ++i) {
    v1::Payload* item = list.add_items();
    item->set_encoding(v1::ENCODING_BYTES);
    item->set_data(std::string(options.payload_bytes, 'x'));
  }
  Payload input;
  input.encoding = Encoding::kList;
  input.data = list.SerializeAsString();

  Meter meter(&system);
  Driver driver(client, "bench.map", {input});
  driver.Begin(1, true);
  uint64_t resident = 0;
  while (!driver.Idle()) {
    Sleep(0.01);
    resident = std::max(resident, system.coordinator.ResidentBytes());
  }
  FLUX_RETURN_IF_ERROR(driver.Wait(absl::Seconds(1)));
  Window window = meter.Read();
  window.resident_max = std::max(resident, window.resident_max);
  Answer answer = Describe("map", options, window, system.DiskBytes(), window.steps);
  answer["items"] = items;
  answer["idle_rss_mib"] = std::round(static_cast<double>(idle_bytes) / (1 << 20) * 10) / 10;
  answer["bytes_per_item"] = std::round(static_cast<double>(window.resident_max - idle_bytes) /
                                        static_cast<double>(items));
  system.worker.Stop();
  system.coordinator.Stop();
  FLUX_RETURN_IF_ERROR(AddCeiling(options, &answer));
  return answer;
}

namespace {

// Starts executions with `in_flight` unanswered at a time until told to stop; counts the
// acknowledged.
class Starter {
 public:
  // Fills in what else the start of that number is to say, and answers with its workflow.
  using Prepare = std::function<std::string(uint64_t number, StartOptions* start)>;

  Starter(Client client, Prepare prepare, Payload input)
      : client_(std::move(client)), prepare_(std::move(prepare)), input_(std::move(input)) {}
  Starter(Client client, std::string workflow, Payload input)
      : Starter(
            std::move(client),
            [workflow = std::move(workflow)](uint64_t, StartOptions*) { return workflow; },
            std::move(input)) {}

  // Up to `count` starts, or until `seconds` have passed. How many were acknowledged, and in what
  // time.
  absl::StatusOr<std::pair<uint64_t, double>> Run(uint32_t in_flight, uint64_t count,
                                                  double seconds, Histogram* latency) {
    count_ = count;
    latency_ = latency;
    const int64_t began = NowNs();
    until_ns_ = began + static_cast<int64_t>(seconds * 1e9);
    for (uint32_t i = 0; i < in_flight; ++i) Next();
    std::unique_lock lock(mutex_);
    idle_.wait(lock, [this] { return open_ == 0; });
    if (!failure_.ok()) return failure_;
    return std::pair<uint64_t, double>(acknowledged_, static_cast<double>(NowNs() - began) / 1e9);
  }

 private:
  void Next() {
    uint64_t number = 0;
    {
      std::lock_guard lock(mutex_);
      if (started_ >= count_ || NowNs() >= until_ns_ || !failure_.ok()) return;
      number = started_++;
      ++open_;
    }
    StartOptions start;
    start.id = absl::StrCat("s-", number);
    std::string workflow = prepare_(number, &start);
    const int64_t began = NowNs();
    client_.StartRawAsync(std::move(workflow), std::move(start), {input_},
                          [this, began](absl::StatusOr<RawRun> run) {
                            latency_->Add(NowNs() - began);
                            {
                              std::lock_guard lock(mutex_);
                              if (run.ok()) {
                                ++acknowledged_;
                              } else if (failure_.ok()) {
                                failure_ = run.status();
                              }
                            }
                            Next();
                            std::lock_guard lock(mutex_);
                            if (--open_ == 0) idle_.notify_all();
                          });
  }

  Client client_;
  const Prepare prepare_;
  const Payload input_;
  std::mutex mutex_;
  std::condition_variable idle_;
  uint64_t count_ = 0, started_ = 0, open_ = 0, acknowledged_ = 0;
  int64_t until_ns_ = 0;
  Histogram* latency_ = nullptr;
  absl::Status failure_;
};

// What the starts of a Starter took; `done` is its answer, `cpu` the coordinator's time before.
Window Filled(System& system, const std::pair<uint64_t, double>& done, double cpu) {
  Window window;
  window.steps = done.first;
  window.seconds = done.second;
  const auto latency = system.shared().latency.Read();
  window.p50_ms = Histogram::QuantileMs(latency, 0.5);
  window.p99_ms = Histogram::QuantileMs(latency, 0.99);
  window.coordinator_cpu = system.coordinator.CpuSeconds() - cpu;
  window.resident_max = system.coordinator.ResidentBytes();
  return window;
}

}  // namespace

absl::StatusOr<Answer> RunStart(const Options& options) {
  System system;
  FLUX_RETURN_IF_ERROR(system.Start());
  FLUX_RETURN_IF_ERROR(system.Put(ChainDefinition(1)));
  FLUX_ASSIGN_OR_RETURN(Client client, Client::Connect(system.address));
  Starter starter(client, "bench.chain", BytesPayload(options.payload_bytes));
  const double cpu = system.coordinator.CpuSeconds();
  const uint64_t count = options.steps == 0 ? UINT64_MAX : options.steps;
  FLUX_ASSIGN_OR_RETURN(
      auto done, starter.Run(options.in_flight, count, options.seconds, &system.shared().latency));
  const Window window = Filled(system, done, cpu);
  Answer answer = Describe("start", options, window, system.DiskBytes(), done.first);
  answer["starts_per_s"] = answer["steps_per_s"];
  system.coordinator.Stop();
  FLUX_RETURN_IF_ERROR(AddCeiling(options, &answer));
  return answer;
}

namespace {

// Waits until executions have left memory, for two minutes at most. How many have not.
absl::StatusOr<uint64_t> AwaitEviction(System& system) {
  const absl::Time by = absl::Now() + absl::Seconds(120);
  uint64_t resident = 1;
  while (resident > 0 && absl::Now() < by) {
    FLUX_ASSIGN_OR_RETURN(v1::GetServerInfoResponse info, system.Info());
    resident = info.executions_resident();
    Sleep(0.2);
  }
  return resident;
}

}  // namespace

absl::StatusOr<Answer> RunIdle(const Options& options) {
  const uint64_t count = options.steps == 0 ? 100'000 : options.steps;
  System system;
  FLUX_RETURN_IF_ERROR(system.Start());
  FLUX_RETURN_IF_ERROR(system.Put(NapDefinition()));
  FLUX_ASSIGN_OR_RETURN(Client client, Client::Connect(system.address));
  Sleep(1);
  const uint64_t empty = system.coordinator.ResidentBytes();
  Starter starter(client, "bench.nap", BytesPayload(options.payload_bytes));
  const double cpu = system.coordinator.CpuSeconds();
  FLUX_ASSIGN_OR_RETURN(auto done,
                        starter.Run(options.in_flight, count, 3600, &system.shared().latency));
  const Window window = Filled(system, done, cpu);

  // And what they took with them has gone back to the system.
  FLUX_ASSIGN_OR_RETURN(const uint64_t resident, AwaitEviction(system));
  Sleep(6);
  const uint64_t idle = system.coordinator.ResidentBytes();
  Answer answer = Describe("idle", options, window, system.DiskBytes(), count);
  const auto mib = [](uint64_t bytes) {
    return std::round(static_cast<double>(bytes) / (1 << 20) * 10) / 10;
  };
  answer["executions"] = done.first;
  answer["resident_executions"] = resident;
  answer["empty_rss_mib"] = mib(empty);
  answer["idle_rss_mib"] = mib(idle);
  answer["above_empty_mib"] = mib(idle) - mib(empty);

  // kill -9, then from exec to the first answer.
  system.coordinator.Signal(SIGKILL);
  while (system.coordinator.Running()) Sleep(0.01);
  const int64_t began = NowNs();
  FLUX_RETURN_IF_ERROR(system.StartCoordinator());
  FLUX_RETURN_IF_ERROR(system.Info().status());
  answer["restart_s"] = std::round(static_cast<double>(NowNs() - began) / 1e6) / 1000;
  {
    grpc::ClientContext context;
    v1::CountExecutionsRequest request;
    v1::CountExecutionsResponse response;
    if (!system.workflows->CountExecutions(&context, request, &response).ok() ||
        response.count() != count) {
      return absl::InternalError(absl::StrCat("after the restart there are ", response.count(),
                                              " executions, not ", count));
    }
  }
  system.coordinator.Stop();
  FLUX_RETURN_IF_ERROR(AddCeiling(options, &answer));
  return answer;
}

namespace {

constexpr uint64_t kTenantExecutions = 1'000;  // of one value of the label
constexpr uint64_t kNapEvery = 10;             // the others are done
constexpr uint32_t kPage = 100;
constexpr uint32_t kWalkPage = 1'000;

// The token of a page half way down, by pages as large as there are.
absl::StatusOr<std::string> WalkHalf(const Asker& asker, uint64_t count) {
  v1::ListExecutionsRequest request;
  for (uint64_t seen = 0; seen + kPage <= count / 2;) {
    request.set_page_size(static_cast<uint32_t>(std::min<uint64_t>(kWalkPage, count / 2 - seen)));
    FLUX_ASSIGN_OR_RETURN(v1::ListExecutionsResponse page, asker.List(request));
    seen += static_cast<uint64_t>(page.executions_size());
    request.set_page_token(page.next_page_token());
  }
  return request.page_token();
}

}  // namespace

absl::StatusOr<Answer> RunList(const Options& options) {
  const uint64_t count = options.executions;
  System system;
  FLUX_RETURN_IF_ERROR(system.Start());
  FLUX_RETURN_IF_ERROR(system.Put(NothingDefinition()));
  FLUX_RETURN_IF_ERROR(system.Put(NapDefinition()));
  FLUX_ASSIGN_OR_RETURN(Client client, Client::Connect(system.address));
  const uint64_t tenants = (count + kTenantExecutions - 1) / kTenantExecutions;
  Starter starter(
      client,
      [tenants](uint64_t number, StartOptions* start) {
        start->labels["tenant"] = absl::StrCat("t-", number % tenants);
        return number % kNapEvery == 0 ? "bench.nap" : "bench.nothing";
      },
      BytesPayload(options.payload_bytes));
  const double cpu = system.coordinator.CpuSeconds();
  const int64_t from_ms = absl::ToUnixMillis(absl::Now());
  FLUX_ASSIGN_OR_RETURN(auto done,
                        starter.Run(options.in_flight, count, 3600, &system.shared().latency));
  const int64_t to_ms = absl::ToUnixMillis(absl::Now());
  const Window window = Filled(system, done, cpu);
  FLUX_ASSIGN_OR_RETURN(const uint64_t resident, AwaitEviction(system));
  Answer answer = Describe("list", options, window, system.DiskBytes(), count);
  answer["executions"] = count;
  answer["resident_executions"] = resident;

  Asker asker(system.workflows.get(), options.seconds);
  v1::ListExecutionsRequest request;
  request.set_page_size(kPage);
  FLUX_ASSIGN_OR_RETURN(answer["first_page"], asker.TimePage(request, kPage));
  v1::ListExecutionsRequest deep = request;
  FLUX_ASSIGN_OR_RETURN(*deep.mutable_page_token(), WalkHalf(asker, count));
  FLUX_ASSIGN_OR_RETURN(answer["deep_page"],
                        asker.TimePage(deep, std::min<uint64_t>(kPage, count / 2)));
  // Of tenant 0: numbers 0, `tenants`, 2 * `tenants`, …
  const uint64_t of_tenant = (count + tenants - 1) / tenants;
  v1::ListExecutionsRequest label = request;
  label.mutable_filter()->set_query("label.tenant = \"t-0\"");
  FLUX_ASSIGN_OR_RETURN(answer["label_page"],
                        asker.TimePage(label, std::min<uint64_t>(kPage, of_tenant)));
  // From the middle of the fill on backwards, so that the newest half is passed over.
  v1::ListExecutionsRequest range = request;
  range.mutable_filter()->set_started_after_ms(from_ms - 1);
  range.mutable_filter()->set_started_before_ms(from_ms + (to_ms - from_ms) / 2 + 1);
  FLUX_ASSIGN_OR_RETURN(const v1::ListExecutionsResponse in_range, asker.List(range));
  FLUX_ASSIGN_OR_RETURN(answer["time_range_page"],
                        asker.TimePage(range, static_cast<uint64_t>(in_range.executions_size())));
  const uint64_t naps = (count + kNapEvery - 1) / kNapEvery;
  FLUX_ASSIGN_OR_RETURN(
      answer["kept_count"],
      asker.TimeCount("workflow = \"bench.nothing\" and status = \"completed\"", count - naps));
  FLUX_ASSIGN_OR_RETURN(answer["label_count"],
                        asker.TimeCount("label.tenant = \"t-0\"", of_tenant));
  FLUX_ASSIGN_OR_RETURN(answer["scanned_count"], asker.TimeCount("started > -1d", count));
  system.coordinator.Stop();
  FLUX_RETURN_IF_ERROR(AddCeiling(options, &answer));
  return answer;
}

}  // namespace flux::bench
