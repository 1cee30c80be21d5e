#include "tests/sim/process.h"

#include <limits>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "proto/bridge.h"

namespace flux::sim {
namespace {

constexpr int64_t kEpochMs = 1'700'000'000'000;
constexpr int64_t kLoopUs = 200;  // longest time until the loop takes up what arrived
constexpr int64_t kJobUs = 2'000;
constexpr int64_t kStallUs = 3'000'000;
constexpr int64_t kSlowUs = 2'000'000;
constexpr uint64_t kNearlyFullBytes = 1'000;

}  // namespace

Process::Process(Options options, const FaultPlan* plan, Timeline* timeline, Peers* peers)
    : options_(std::move(options)),
      plan_(*plan),
      timeline_(timeline),
      peers_(peers),
      dice_(options_.seed),
      disk_(std::make_shared<store::MemoryDisk>(
          store::MemoryDiskOptions{.shards = options_.shards})) {}

Process::~Process() {
  if (up()) Kill({});
}

int64_t Process::WallMs() const { return kEpochMs + MonotonicMs() + wall_offset_ms_; }

// ---- life ----

store::FaultRates Process::Rates() const {
  store::FaultRates rates;
  if (healed_) return rates;
  const auto rate = [](int64_t permille) { return static_cast<uint32_t>(permille * 10); };
  rates.append = rates.write = rates.write_sync = rate(plan_.error_permille);
  rates.read = rate(plan_.read_permille);
  return rates;
}

void Process::Start() {
  const absl::Status status = Open();
  if (status.ok()) {
    peers_->OnNote("fluxd is up");
    peers_->OnUp();
    Plan();
    return;
  }
  const bool explained = full_ || (faulty_ != nullptr && faulty_->faults() > 0);
  if (memory_ != nullptr) {
    Kill({.unsynced_kept = dice_.OneIn(2) ? 0 : std::numeric_limits<size_t>::max()});
  }
  if (!explained) {
    peers_->OnProblem(absl::StrCat("fluxd cannot open its store: ", status.ToString()));
    return;
  }
  peers_->OnNote(absl::StrCat("fluxd does not come up: ", status.ToString()));
  timeline_->After(dice_.Between(20'000, 500'000), [this] { Start(); });
}

absl::Status Process::Open() {
  ++life_;
  fatal_ = absl::OkStatus();
  turn_at_us_ = -1;
  disk_planned_ = false;
  auto memory = store::MemoryStore::Open(disk_, {.manual = true, .seed = dice_.Next()});
  FLUX_RETURN_IF_ERROR(memory.status());
  memory_ = memory->get();
  store::FaultRates opening = Rates();
  opening.seed = dice_.Next();
  if (!healed_) {
    const auto rate = static_cast<uint32_t>(plan_.open_permille * 10);
    opening.claim = opening.write_sync = opening.read = rate;
  }
  faulty_ = std::make_unique<store::FaultyStore>(*std::move(memory), opening);
  planted_ = std::make_unique<PlantedStore>(options_.bug, dice_.Next(), faulty_.get());
  engine::Engine::Environment environment;
  environment.store = planted_.get();
  environment.clock = this;
  environment.background = this;
  environment.workers = this;
  environment.random = [this] { return dice_.Next(); };
  environment.on_fatal = [this](absl::Status status) { fatal_ = std::move(status); };
  environment.log = [this](int level, const std::string& text) {
    peers_->OnNote(absl::StrCat("log ", level, ": ", text));
  };
  auto engine = engine::Engine::Open(options_.engine, environment);
  FLUX_RETURN_IF_ERROR(engine.status());
  engine_ = *std::move(engine);
  faulty_->SetRates(Rates());
  return absl::OkStatus();
}

void Process::Crash(const std::string& why) {
  if (!up()) return;
  ++crashes_;
  store::CrashOptions crash;
  crash.queued_written = dice_.Below(memory_->Pending() + 1);
  crash.torn_tail = dice_.Chance(static_cast<uint32_t>(plan_.torn_permille));
  crash.unsynced_kept = std::numeric_limits<size_t>::max();
  if (dice_.Chance(static_cast<uint32_t>(plan_.power_permille))) {
    crash.unsynced_kept = dice_.Below(disk_->UnsyncedWrites() + 1);
  }
  peers_->OnNote(absl::StrCat("fluxd dies: ", why));
  Kill(crash);
  peers_->OnDown();
  timeline_->After(1'000 * dice_.Between(1, std::max<int64_t>(plan_.down_ms, 1)),
                   [this] { Start(); });
}

void Process::Kill(const store::CrashOptions& crash) {
  ++life_;
  memory_->Crash(crash);
  planted_->OnCrash(disk_.get());
  engine_ = nullptr;
  planted_ = nullptr;
  faulty_ = nullptr;
  memory_ = nullptr;
}

void Process::Heal() {
  healed_ = true;
  FillDisk(false);
  if (up()) faulty_->SetRates(Rates());
}

void Process::FillDisk(bool full) {
  full_ = full;
  const uint64_t free = dice_.OneIn(2) ? 0 : kNearlyFullBytes;
  disk_->SetFreeBytes(full ? free : std::numeric_limits<uint64_t>::max());
}

std::string Process::RowsOf(std::string_view tables) {
  if (!up()) return "fluxd is down";
  std::string text;
  const absl::Status status =
      memory_->Scan("", std::string(64, '\xff'), [&](std::string_view key, std::string_view value) {
        if (key.size() < 3 || tables.find(key[2]) == std::string_view::npos) return true;
        absl::StrAppend(&text, "\n    ", absl::CHexEscape(ToAbsl(key)), ", ", value.size(),
                        " bytes");
        return true;
      });
  if (!status.ok()) absl::StrAppend(&text, status.ToString());
  return text;
}

// ---- what happens next ----

void Process::Plan() {
  if (!up()) return;
  if (!fatal_.ok()) {
    Crash(absl::StrCat("a write failed: ", fatal_.ToString()));
    return;
  }
  PlanDisk();
  PlanTurn();
}

void Process::PlanDisk() {
  if (disk_planned_ || memory_->Pending() == 0) return;
  disk_planned_ = true;
  int64_t latency = dice_.Between(1, plan_.disk_us);
  if (!healed_ && dice_.Chance(static_cast<uint32_t>(plan_.slow_permille))) {
    latency = dice_.Between(1, kSlowUs);
  }
  timeline_->After(latency, [this, life = life_] {
    if (life == life_) StepDisk();
  });
}

void Process::StepDisk() {
  disk_planned_ = false;
  const bool dies = !healed_ && dice_.Chance(static_cast<uint32_t>(plan_.step_permille));
  if (!dies || dice_.OneIn(2)) memory_->Step();
  if (dies) {
    Crash("in the middle of a write");
  } else {
    Plan();
  }
}

void Process::Poke() {
  // Once in a while the disk is done between what came before and what comes after, in one turn.
  if (up() && dice_.OneIn(4)) engine_->inbox().Push([this] { memory_->Step(); });
  Plan();
}

void Process::PlanTurn() {
  const int64_t now = timeline_->now_us();
  const int64_t at = engine_->inbox().size() > 0 ? now + dice_.Between(0, kLoopUs)
                                                 : engine_->NextDeadlineMs() * 1000;
  if (turn_at_us_ >= 0 && turn_at_us_ <= at) return;
  turn_at_us_ = std::max(at, now);
  timeline_->At(turn_at_us_, [this, life = life_, planned = turn_at_us_] {
    if (life == life_ && turn_at_us_ == planned) Turn();
  });
}

void Process::Turn() {
  turn_at_us_ = -1;
  if (!healed_ && dice_.Chance(static_cast<uint32_t>(plan_.stall_permille))) {
    turn_at_us_ = timeline_->now_us() + dice_.Between(1, kStallUs);
    timeline_->At(turn_at_us_, [this, life = life_, planned = turn_at_us_] {
      if (life == life_ && turn_at_us_ == planned) {
        turn_at_us_ = -1;
        engine_->Turn();
        Plan();
      }
    });
    return;
  }
  engine_->Turn();
  Plan();
}

void Process::Run(absl::AnyInvocable<void()> job) {
  timeline_->After(dice_.Between(0, kJobUs), [this, life = life_, job = std::move(job)]() mutable {
    if (life != life_) return;
    job();
    Plan();
  });
}

void Process::Send(engine::StreamId stream, ArenaPtr<v1::ConnectResponse> message) {
  PlantInTasks(options_.bug, message.get());
  peers_->OnMessage(stream, std::move(message));
}

void Process::Close(engine::StreamId stream, absl::Status why) { peers_->OnClose(stream, why); }

}  // namespace flux::sim
