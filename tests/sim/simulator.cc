#include "tests/sim/simulator.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "proto/bridge.h"
#include "tests/sim/simulation.h"
#include "tests/sim/worker.h"

namespace flux::sim {
namespace {

constexpr int64_t kMsUs = 1'000;
constexpr int64_t kQuietUs = 45 * 60 * int64_t{1'000'000};  // longer than any timer and clock jump
constexpr int64_t kLimitUs = 24 * 3'600 * int64_t{1'000'000};
constexpr int64_t kReleaseUs = 10'000'000;
constexpr size_t kProblemsMax = 5;

}  // namespace

Simulation::Simulation(const SimOptions& options)
    : options_(options),
      dice_(Mix(options.seed + 1)),
      plan_(FaultPlan::FromSeed(dice_)),
      script_seed_(dice_.Next()),
      ledger_([this](const std::string& text) { Problem(text); }) {
  if (options.quiet) {
    const int64_t faults_ms = plan_.faults_ms;
    plan_ = FaultPlan::None();
    plan_.faults_ms = faults_ms;
  }
  for (const std::string& assignment : options.faults) {
    if (absl::Status status = plan_.Set(assignment); !status.ok()) Problem(status.ToString());
  }
  verify_after_crashes_ = dice_.OneIn(2);
  deletes_ = dice_.OneIn(3);
  DrawPrograms();
  process_ = std::make_unique<Process>(DrawOptions(), &plan_, &timeline_, this);
  MakeWorkers();
}

Simulation::~Simulation() = default;

// ---- what there is ----

void Simulation::DrawPrograms() {
  GraphBounds bounds;
  bounds.steps_max = static_cast<uint32_t>(dice_.Pick({6, 15, 30}));
  bounds.depth_max = static_cast<uint32_t>(dice_.Pick({1, 2, 3}));
  bounds.parks = dice_.OneIn(10);
  bounds.deadlines = dice_.OneIn(4);
  bounds.waits = dice_.OneIn(8);
  bounds.events = dice_.OneIn(3);
  bounds.pages = dice_.OneIn(4);
  bounds.continues = dice_.OneIn(4);
  bounds.undoes = dice_.OneIn(4);
  bounds.early = dice_.OneIn(4);
  const int64_t runs = dice_.Between(1, 6);
  // Programs that others may start as children: small, and with neither events nor children.
  if (dice_.OneIn(4)) {
    GraphBounds small = bounds;
    small.steps_max = 6;
    small.events = small.parks = false;
    for (int64_t i = 0; i < 2; ++i) {
      programs_.push_back(
          std::make_unique<Program>(MakeProgram(absl::StrCat("child-", i), small, dice_)));
      bounds.children.push_back(programs_.back().get());
    }
  }
  if (bounds.events && !bounds.parks && dice_.OneIn(2)) {
    for (int64_t i = 0; i < runs; ++i) bounds.event_targets.push_back(absl::StrCat("run-", i));
  }
  const size_t first = programs_.size();
  const int64_t count = dice_.Between(1, 3);
  for (int64_t i = 0; i < count; ++i) {
    const std::string name = absl::StrCat("program-", i);
    programs_.push_back(std::make_unique<Program>(
        dice_.OneIn(25) ? MakeLongProgram(name, 20 + dice_.Below(600), dice_)
                        : MakeProgram(name, bounds, dice_)));
  }
  for (size_t i = first; i < programs_.size(); ++i) {
    if (dice_.OneIn(2)) AddNextVersion(programs_[i].get(), dice_);
  }
  for (const std::unique_ptr<Program>& program : programs_) {
    emitted_.insert(program->emits.begin(), program->emits.end());
  }
  for (int64_t i = 0; i < runs; ++i) {
    auto run = std::make_unique<Run>();
    run->id = absl::StrCat("run-", i);
    run->request_id = absl::StrCat("request-", i);
    run->program = programs_[first + dice_.Below(static_cast<uint64_t>(count))].get();
    run->inputs = run->program->inputs;
    run->operated = dice_.Chance(static_cast<uint32_t>(plan_.operate_permille));
    runs_.push_back(std::move(run));
  }
}

Process::Options Simulation::DrawOptions() {
  Process::Options options;
  options.seed = dice_.Next();
  options.bug = options_.bug;
  options.shards = static_cast<uint32_t>(dice_.Pick({1, 2, 4, 8}));
  engine::EngineOptions& engine = options.engine;
  engine.payload_bytes_max = 64 * 1024;
  engine.payload_inline_bytes = static_cast<size_t>(dice_.Pick({250, 64 * 1024}));
  engine.cache_bytes_max = static_cast<size_t>(dice_.Pick({0, 20'000, 100'000'000}));
  engine.idle_before_eviction = absl::Milliseconds(dice_.Pick({0, 100, 1'000}));
  engine.log_tail_bytes_max = static_cast<uint64_t>(dice_.Pick({500, 5'000, 50'000'000}));
  engine.snapshot_records_min = static_cast<uint64_t>(dice_.Pick({4, 50, 1'024}));
  if (dice_.OneIn(4)) {
    engine.history.records_min = static_cast<uint64_t>(dice_.Pick({10, 50}));
    engine.history.turns_min = static_cast<uint64_t>(dice_.Pick({1, 5}));
    engine.history.records_most = static_cast<uint64_t>(dice_.Pick({100, 1'000}));
  }
  engine.loads_in_flight_max = static_cast<size_t>(dice_.Pick({1, 256}));
  engine.row_write_bytes_max = static_cast<size_t>(dice_.Pick({500, 10'000, 8'000'000}));
  engine.wake_horizon = absl::Milliseconds(dice_.Pick({500, 5'000, 60'000}));
  engine::DispatchOptions& dispatch = engine.dispatch;
  dispatch.session_grace = absl::Milliseconds(dice_.Pick({500, 3'000, 10'000}));
  dispatch.ping_interval = absl::Milliseconds(dice_.Pick({300, 2'000, 5'000}));
  dispatch.ready_per_queue_max = static_cast<size_t>(dice_.Pick({2, 10, 20'000}));
  dispatch.refill_below = (dispatch.ready_per_queue_max + 1) / 2;
  dispatch.ready_floor = static_cast<size_t>(dice_.Pick({1, 3, 256}));
  dispatch.tasks_per_message_max = static_cast<size_t>(dice_.Pick({1, 1'000}));
  if (dice_.OneIn(4)) {
    engine::QueueLimits& limits = dispatch.queue_limits[kQueues[dice_.Below(2)]];
    limits.concurrency_max = static_cast<uint32_t>(dice_.Pick({0, 1, 3}));
    limits.per_key_concurrency = static_cast<uint32_t>(dice_.Pick({0, 1, 2}));
    limits.rate_permille_per_s = static_cast<uint64_t>(dice_.Pick({0, 50'000}));
  }
  return options;
}

void Simulation::MakeWorkers() {
  // The first of each queue knows every task, so that there is somebody for each.
  const int64_t count = dice_.Between(2, 5);
  for (int64_t i = 0; i < count; ++i) {
    SimWorker::Options options;
    options.id = absl::StrCat("worker-", i);
    options.queue = kQueues[i % 2];
    for (int task = 0; task < 3; ++task) {
      if (i < 2 || dice_.OneIn(2)) options.tasks.push_back(absl::StrCat("t", task));
    }
    if (options.tasks.empty()) options.tasks.push_back("t0");
    options.slots = static_cast<uint32_t>(dice_.Pick({1, 2, 10}));
    options.prefetch = static_cast<uint32_t>(dice_.Pick({0, 1, 10}));
    workers_.push_back(std::make_unique<SimWorker>(this, std::move(options)));
  }
}

const Program* Simulation::ProgramOf(const std::string& workflow) const {
  for (const std::unique_ptr<Program>& program : programs_) {
    if (program->definition.name() == workflow) return program.get();
  }
  return programs_[0].get();
}

// ---- faults ----

void Simulation::Every(int64_t mean_ms, std::function<void()> fault) {
  if (mean_ms <= 0) return;
  timeline_.After(dice_.Between(1, 2 * mean_ms) * kMsUs, [this, mean_ms, fault] {
    if (healed_) return;
    fault();
    Every(mean_ms, fault);
  });
}

void Simulation::ArmFaults() {
  Every(plan_.crash_every_ms, [this] { process_->Crash("killed"); });
  Every(plan_.jump_every_ms, [this] {
    const int64_t ahead_ms = dice_.Between(-plan_.jump_ms, plan_.jump_ms);
    Note(absl::StrCat("the wall clock jumps and is ahead by ", ahead_ms, " ms"));
    process_->SetClock(ahead_ms);
  });
  Every(plan_.full_every_ms, [this] {
    Note("the disk is full");
    process_->FillDisk(true);
    timeline_.After(dice_.Between(1, 3'000) * kMsUs, [this] { process_->FillDisk(false); });
  });
  for (const std::unique_ptr<SimWorker>& owned : workers_) {
    SimWorker* worker = owned.get();
    Every(plan_.break_every_ms, [this, worker] {
      if (worker->stream() != 0) BreakStream(worker->stream());
    });
    Every(plan_.death_every_ms, [worker] { worker->Die(); });
    Every(plan_.drain_every_ms, [worker] { worker->Drain(); });
  }
}

void Simulation::Heal() {
  Note("all faults stop");
  healed_ = true;
  process_->Heal();
  // Behind whatever operators asked for before.
  ++releasing_;
  timeline_.After(kReleaseUs, [this] {
    EndBulks([this] {
      // What they began with may still be under way.
      timeline_.After(kReleaseUs, [this] {
        --releasing_;
        for (const std::unique_ptr<Run>& run : runs_) {
          if (run->operated) Release(run.get());
        }
      });
    });
  });
}

// ---- the run ----

void Simulation::Problem(const std::string& text) {
  Note(absl::StrCat("PROBLEM: ", text));
  if (problems_.size() < kProblemsMax) problems_.push_back(text);
}

void Simulation::Note(const std::string& text) {
  if (!options_.verbose) return;
  std::printf("%10.3f  %s\n", static_cast<double>(timeline_.now_us()) / 1e6, text.c_str());
}

void Simulation::Pass(int64_t us) {
  const int64_t until = timeline_.now_us() + us;
  while (problems_.empty() && timeline_.now_us() < until && timeline_.Step()) {
  }
}

void Simulation::Settle() {
  // Executions are counted, not asked for: that would wake those that nothing else wakes.
  uint64_t open = UINT64_MAX;
  uint64_t seen = 0;
  int64_t since_us = timeline_.now_us();
  while (problems_.empty() && open > 0 && timeline_.now_us() - since_us < kQuietUs &&
         timeline_.now_us() < kLimitUs) {
    Pass(1'000 * kMsUs);
    // Asked before the count, which takes time in which one may start.
    open = releasing_;
    for (const std::unique_ptr<Run>& run : runs_) {
      if (run->run_id.empty() && !run->refused) ++open;
    }
    v1::CountExecutionsRequest request;
    for (const auto open_status : {v1::EXECUTION_STATUS_RUNNING, v1::EXECUTION_STATUS_PAUSED,
                                   v1::EXECUTION_STATUS_FAILING, v1::EXECUTION_STATUS_CANCELLING}) {
      request.mutable_filter()->add_statuses(open_status);
    }
    const auto count = AskNow<v1::CountExecutionsResponse>(
        [&](engine::Engine& engine, engine::Engine::Reply<v1::CountExecutionsResponse> reply) {
          engine.Count(request, std::move(reply));
        });
    if (!count.ok()) return Problem(absl::StrCat("counting: ", count.status().ToString()));
    open += count->count();
    const uint64_t now = ledger_.handed_out() + ledger_.recorded() + process_->commits();
    if (now != seen) since_us = timeline_.now_us();
    seen = now;
  }
  if (problems_.empty() && releasing_ > 0) Problem("an operator waits for an answer without end");
}

SimReport Simulation::RunAll() {
  SimReport report;
  report.plan = plan_.Text();
  Note(absl::StrCat("seed ", options_.seed, ", ", report.plan));
  for (const std::unique_ptr<Program>& program : programs_) {
    if (!verbose()) break;
    Note(program->definition.ShortDebugString());
    for (const auto& [name, script] : program->scripts) {
      if (script.fragment == nullptr) continue;
      Note(absl::StrCat(name, " may go on as ", script.fragment->name()));
    }
    for (const auto& fragment : program->fragments) {
      Note(absl::StrCat("fragment ", fragment->ShortDebugString()));
    }
  }
  process_->Start();
  for (const std::unique_ptr<SimWorker>& worker : workers_) worker->Start();
  for (const std::unique_ptr<Run>& run : runs_) {
    StartLater(run.get(), dice_.Between(0, plan_.faults_ms / 2) * kMsUs);
  }
  ArmFaults();
  if (std::any_of(runs_.begin(), runs_.end(), [](const auto& run) { return run->operated; })) {
    BulkLater();
  }
  timeline_.After(plan_.faults_ms * kMsUs, [this] { Heal(); });
  while (problems_.empty() && !healed_ && timeline_.Step()) {
  }
  if (problems_.empty()) Settle();
  for (const std::unique_ptr<Run>& run : runs_) {
    if (problems_.empty()) (void)CheckRun(run.get());
  }
  if (problems_.empty()) CheckBulks();
  if (problems_.empty()) CheckQueries();
  if (problems_.empty() && deletes_) DeleteAll();
  report.problems = problems_;
  report.simulated_ms = timeline_.now_us() / kMsUs;
  report.executions = runs_.size();
  report.deliveries = ledger_.handed_out();
  report.crashes = process_->crashes();
  report.digest = digest_;
  return report;
}

SimReport Simulate(const SimOptions& options) { return Simulation(options).RunAll(); }

absl::Status CheckOptions(const SimOptions& options) {
  FaultPlan plan;
  for (const std::string& assignment : options.faults) {
    FLUX_RETURN_IF_ERROR(plan.Set(assignment));
  }
  return absl::OkStatus();
}

}  // namespace flux::sim
