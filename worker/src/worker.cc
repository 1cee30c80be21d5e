#include "flux/worker.h"

#include <algorithm>
#include <cstdio>
#include <string>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/src/names.h"
#include "client/src/rpc_channel.h"
#include "proto/bridge.h"
#include "worker/src/session.h"
#include "worker/src/signals.h"

namespace flux {
namespace {

constexpr uint32_t kSlotsMax = 4'096;

void LogToStderr(LogLevel level, std::string_view text) {
  if (level == LogLevel::kInfo) return;
  const std::string line =
      absl::StrCat("flux worker: ", level == LogLevel::kError ? "error: " : "", ToAbsl(text), "\n");
  std::fwrite(line.data(), 1, line.size(), stderr);
}

}  // namespace

Worker::Worker(WorkerOptions options) : options_(std::move(options)) {
  if (options_.slots == 0) options_.slots = std::max(1u, std::thread::hardware_concurrency());
  if (options_.id.empty()) options_.id = internal::DefaultIdentity();
  if (options_.queue.empty()) options_.queue = "default";
  if (options_.drain_timeout < absl::ZeroDuration()) options_.drain_timeout = absl::ZeroDuration();
  if (!options_.log) options_.log = LogToStderr;
}

Worker::~Worker() {
  if (session_ == nullptr) return;
  session_->RequestDrain();
  // What the drain came to was the caller's to ask for; here everything just ends.
  session_->Wait().IgnoreError();
  session_->Join();
}

Worker& Worker::Register(const TaskSet& tasks) {
  for (const std::string& name : tasks.names()) tasks_.RegisterRaw(name, *tasks.Find(name));
  return *this;
}

absl::Status Worker::Start() {
  if (session_ != nullptr) {
    return absl::FailedPreconditionError(
        "this worker was started before: make a new Worker for a second life");
  }
  FLUX_RETURN_IF_ERROR(internal::CheckTarget(options_.target));
  FLUX_RETURN_IF_ERROR(tasks_.status());
  if (tasks_.empty()) {
    return absl::InvalidArgumentError(
        "the worker has no task: call Register for at least one before Run or Start");
  }
  FLUX_RETURN_IF_ERROR(internal::CheckName("worker id", options_.id));
  FLUX_RETURN_IF_ERROR(internal::CheckName("queue", options_.queue));
  if (options_.slots > kSlotsMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("slots of ", options_.slots, " is over the limit of ", kSlotsMax,
                     " threads a worker: start several workers, or give each fewer slots"));
  }
  if (uint64_t{options_.slots} + options_.prefetch.value_or(0) > internal::kTasksMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("slots of ", options_.slots, " and a prefetch of ", *options_.prefetch,
                     " are together over the limit of ", internal::kTasksMax,
                     " tasks that the coordinator hands to one worker: prefetch at most ",
                     internal::kTasksMax - options_.slots));
  }
  internal::TaskHandlers handlers;
  for (const std::string& name : tasks_.names()) handlers.emplace(name, *tasks_.Find(name));
  session_ = std::make_shared<internal::Session>(options_, std::move(handlers));
  session_->Start();
  return absl::OkStatus();
}

absl::Status Worker::Run() {
  FLUX_RETURN_IF_ERROR(Start());
  std::unique_ptr<internal::StopSignals> signals;
  if (options_.handle_signals) {
    absl::StatusOr<std::unique_ptr<internal::StopSignals>> made =
        internal::StopSignals::Install([session = session_.get()] { session->RequestDrain(); });
    if (!made.ok()) {
      session_->RequestDrain();
      session_->Wait().IgnoreError();
      return std::move(made).status();
    }
    signals = *std::move(made);
  }
  return session_->Wait();
}

void Worker::Stop() {
  if (session_ != nullptr) session_->RequestDrain();
}

absl::Status Worker::Drain() {
  if (session_ == nullptr) {
    return absl::FailedPreconditionError("the worker was not started: there is nothing to drain");
  }
  session_->RequestDrain();
  return session_->Wait();
}

WorkerStats Worker::stats() const {
  return session_ == nullptr ? WorkerStats{} : session_->stats();
}

}  // namespace flux
