// Clients: start, stop and look, and insist until they are answered.
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/core/run_id.h"
#include "tests/sim/simulation.h"

namespace flux::sim {
namespace {

constexpr int64_t kMsUs = 1'000;

bool IsOpen(v1::ExecutionStatus status) {
  return status == v1::EXECUTION_STATUS_RUNNING || status == v1::EXECUTION_STATUS_PAUSED ||
         status == v1::EXECUTION_STATUS_FAILING || status == v1::EXECUTION_STATUS_CANCELLING;
}

}  // namespace

v1::ExecutionRef Simulation::RefOf(const Run& run) const {
  v1::ExecutionRef ref;
  ref.set_workflow_id(run.id);
  if (run.child) ref.set_run_id(run.run_id);
  return ref;
}

// ---- starting ----

void Simulation::StartLater(Run* run, int64_t after_us) {
  timeline_.After(after_us, [this, run] { SendStart(run); });
}

void Simulation::SendStart(Run* run) {
  if (!process_->up()) return StartLater(run, 100 * kMsUs);
  // Idempotent, and durable when it returns; those it may start as children first.
  std::string hash;
  for (const std::unique_ptr<Program>& program : programs_) {
    const auto put = process_->engine().definitions().Put(program->definition, process_->WallMs());
    process_->Poke();
    if (!put.ok()) {
      if (!absl::IsUnavailable(put.status())) {
        return Problem(absl::StrCat("a definition was refused: ", put.status().ToString()));
      }
      return StartLater(run, 200 * kMsUs);
    }
    if (program.get() == run->program) hash = put->definition_hash();
    if (!process_->up()) return StartLater(run, 200 * kMsUs);
  }
  v1::StartWorkflowRequest request;
  request.set_workflow_id(run->id);
  request.set_request_id(run->request_id);
  request.set_definition_hash(hash);
  for (const v1::Payload& input : run->inputs) *request.add_inputs() = input;
  (*request.mutable_labels())["operated"] = run->operated ? "yes" : "no";
  Ask<v1::StartWorkflowResponse>(
      [request](engine::Engine& engine, Done<v1::StartWorkflowResponse> done) {
        engine.Start(request, std::move(done));
      },
      [this, run](const absl::StatusOr<v1::StartWorkflowResponse>& answer) {
        StartAnswered(run, answer);
      });
}

void Simulation::StartAnswered(Run* run, const absl::StatusOr<v1::StartWorkflowResponse>& answer) {
  if (run->refused) return;
  if (!answer.ok()) {
    if (absl::IsInvalidArgument(answer.status()) && MayBeRefused(run->program->definition)) {
      run->refused = true;
      return;
    }
    // Whatever it is, it is of the moment: the same request again must come to the same in the end.
    if (!absl::IsUnavailable(answer.status()) && !absl::IsResourceExhausted(answer.status()) &&
        !absl::IsDataLoss(answer.status())) {
      return Problem(
          absl::StrCat("the start of ", run->id, " was refused: ", answer.status().ToString()));
    }
    return StartLater(run, dice_.Between(50, 1'000) * kMsUs);
  }
  if (!run->run_id.empty()) {
    if (answer->run_id() != run->run_id || answer->started()) {
      Problem(absl::StrCat("a start of ", run->id, " sent again was answered with run ",
                           answer->run_id(), answer->started() ? " (started)" : "", " instead of ",
                           run->run_id));
    }
    return;
  }
  run->run_id = answer->run_id();
  Note(absl::StrCat(run->id, " is started: run ", run->run_id));
  if (Strikes(plan_.again_permille)) StartLater(run, dice_.Between(1, 10'000) * kMsUs);
  SendEvents(run);
  if (run->operated) {
    OperateLater(run);
  } else if (Strikes(plan_.cancel_permille)) {
    timeline_.After(dice_.Between(1, plan_.faults_ms) * kMsUs, [this, run] { StopLater(run); });
  }
  if (Strikes(plan_.look_permille)) LookLater(run, 1);
}

// ---- stopping ----

void Simulation::StopLater(Run* run) {
  if (healed_ || run->cancelled) return;
  const bool terminate = dice_.OneIn(3);
  run->cancel_asked = true;
  Note(absl::StrCat(run->id, terminate ? " is to be terminated" : " is to be cancelled"));
  const auto again = [this, run](const absl::Status& status, v1::ExecutionStatus stopped) {
    if (status.ok()) {
      run->cancelled = true;
      run->cancel_status = stopped;
    } else if (absl::IsNotFound(status)) {
      Problem(absl::StrCat("the acknowledged execution ", run->id,
                           " is not known: ", status.ToString()));
    } else if (!absl::IsFailedPrecondition(status)) {
      timeline_.After(500 * kMsUs, [this, run] { StopLater(run); });
    }
  };
  if (terminate) {
    v1::TerminateExecutionRequest request;
    *request.mutable_execution() = RefOf(*run);
    Ask<v1::TerminateExecutionResponse>(
        [request](engine::Engine& engine, Done<v1::TerminateExecutionResponse> done) {
          engine.Terminate(request, std::move(done));
        },
        [again](const absl::StatusOr<v1::TerminateExecutionResponse>& answer) {
          again(answer.status(), v1::EXECUTION_STATUS_TERMINATED);
        });
    return;
  }
  v1::CancelExecutionRequest request;
  *request.mutable_execution() = RefOf(*run);
  Ask<v1::CancelExecutionResponse>(
      [request](engine::Engine& engine, Done<v1::CancelExecutionResponse> done) {
        engine.Cancel(request, std::move(done));
      },
      [again](const absl::StatusOr<v1::CancelExecutionResponse>& answer) {
        again(answer.status(), v1::EXECUTION_STATUS_CANCELLED);
      });
}

// ---- events ----

void Simulation::SendEvents(Run* run) {
  for (const std::string& name : run->program->events) {
    if (dice_.OneIn(6)) continue;  // it never comes
    // A second one of a name would run parked readers again, unlike what the interpreter says.
    const bool parks = run->program->parks || run->operated;
    const int64_t count = parks ? 1 : dice_.Between(1, 3);
    for (int64_t i = 0; i < count; ++i) {
      v1::SendEventRequest request;
      *request.mutable_execution() = RefOf(*run);
      request.set_event(name);
      request.set_event_id(absl::StrCat(name, "-", i));
      *request.mutable_payload() = Json(absl::StrCat("\"", name, " ", i, "\""));
      run->sent[name].insert(request.payload().data());
      timeline_.After(
          dice_.Between(1, plan_.faults_ms / 2) * kMsUs, [this, run, request]() mutable {
            if (dice_.OneIn(4)) {
              request.set_deliver_time_ms(process_->WallMs() + dice_.Between(-1'000, 10'000));
            }
            SendEvent(run, request);
          });
    }
  }
}

void Simulation::SendEvent(Run* run, const v1::SendEventRequest& request) {
  Ask<v1::SendEventResponse>(
      [request](engine::Engine& engine, Done<v1::SendEventResponse> done) {
        engine.SendEvent(request, std::move(done));
      },
      [this, run, request](const absl::StatusOr<v1::SendEventResponse>& answer) {
        if (answer.ok()) {
          run->accepted[request.event()].insert(request.event_id());
          // Once more: the same id must change nothing.
          if (Strikes(plan_.again_permille)) SendEvent(run, request);
          return;
        }
        if (absl::IsFailedPrecondition(answer.status())) return;  // it has closed
        if (absl::IsUnavailable(answer.status()) || absl::IsResourceExhausted(answer.status()) ||
            absl::IsDataLoss(answer.status())) {
          timeline_.After(dice_.Between(50, 1'000) * kMsUs,
                          [this, run, request] { SendEvent(run, request); });
          return;
        }
        if (deleting_ && absl::IsNotFound(answer.status())) return;
        Problem(absl::StrCat("event ", request.event(), " for ", run->id,
                             " was refused: ", answer.status().ToString()));
      });
}

// ---- operators ----

v1::OperateExecutionRequest Simulation::OperationOn(const Run& run) const {
  v1::OperateExecutionRequest request;
  *request.mutable_execution() = RefOf(run);
  request.set_identity("operator");
  request.set_reason("the simulation wants it");
  return request;
}

void Simulation::OperateLater(Run* run) {
  // Most executions are over soon: often while they run.
  timeline_.After(dice_.Between(1, dice_.Pick({50, 500, 8'000})) * kMsUs, [this, run] {
    if (healed_) return;
    OperateOnce(run);
    OperateLater(run);
  });
}

void Simulation::OperateOnce(Run* run) {
  // Some step of which a task was handed out: paths as people would have them.
  std::vector<std::string> paths;
  for (const auto& [key, delivered] : ledger_.delivered()) {
    const auto id = engine::RunId::FromText(run->run_id);
    if (id && key.first == id->Bytes()) paths.push_back(key.second);
  }
  std::string path = paths.empty() ? "s0" : paths[dice_.Below(paths.size())];
  // Or the step that one lies in.
  if (dice_.OneIn(3)) path = path.substr(0, path.find_first_of(".["));
  // Pages of a map go by one path; which of them was meant could not be told afterwards.
  if (const size_t page = path.find("[page]"); page != std::string::npos) path.resize(page);
  v1::OperateExecutionRequest request = OperationOn(*run);
  *request.mutable_operation() = DrawOperation(path, *run->program);
  if (request.operation().kind_case() == v1::Operation::KIND_NOT_SET) return;
  Asked(run, request.operation());
  Operate(run, request, /*insists=*/false);
}

v1::Operation Simulation::DrawOperation(const std::string& path, const Program& program) {
  v1::Operation operation;
  const std::string event =
      program.events.empty() ? "" : program.events[dice_.Below(program.events.size())];
  const auto data = [&] {
    return Json(absl::StrCat("\"", event, " changed ", dice_.Below(1'000'000), "\""));
  };
  switch (dice_.Below(event.empty() ? 11 : 15)) {
    case 0:
      operation.mutable_pause();
      break;
    case 1:
      operation.mutable_resume();
      break;
    case 2:
      operation.mutable_retry();
      break;
    case 3:
      if (dice_.OneIn(2)) {
        operation.mutable_retry()->set_step(path);
      } else {
        operation.mutable_unpark()->set_step(path);
      }
      break;
    case 4:
      operation.mutable_park()->set_step(path);
      break;
    case 5:
      operation.mutable_skip()->set_step(path);
      break;
    case 6:
      operation.mutable_set_result()->set_step(path);
      *operation.mutable_set_result()->mutable_result() =
          LiteralOf(dice_.Pick({Shape::kNumber, Shape::kArray}), dice_.Next());
      break;
    case 7:
    case 8:
      operation.mutable_rewind()->set_step(path);
      break;
    case 9:
      if (dice_.OneIn(3)) {
        operation.mutable_cancel();
      } else if (dice_.OneIn(2)) {
        operation.mutable_terminate();
      }
      break;
    case 10: {
      if (program.next_version.scopes().empty() || !process_->up()) break;
      const auto put =
          process_->engine().definitions().Put(program.next_version, process_->WallMs());
      process_->Poke();
      if (!put.ok()) break;  // of the moment: starts insist on theirs
      operation.mutable_migrate()->set_definition_hash(put->definition_hash());
      operation.mutable_migrate()->set_dry_run(dice_.OneIn(3));
      break;
    }
    case 11:
      operation.mutable_cancel_event()->set_event_id(absl::StrCat(event, "-", dice_.Below(3)));
      break;
    case 12:
      operation.mutable_edit_event()->set_event(event);
      operation.mutable_edit_event()->set_number(dice_.OneIn(2) ? 0 : dice_.Below(5));
      *operation.mutable_edit_event()->mutable_payload() = data();
      break;
    default:
      operation.mutable_replay_event()->set_event(event);
      *operation.mutable_replay_event()->mutable_payload() = data();
      break;
  }
  return operation;
}

void Simulation::Asked(Run* run, const v1::Operation& operation) {
  if (operation.has_cancel() || operation.has_terminate()) run->cancel_asked = true;
  if (operation.has_migrate() && !operation.migrate().dry_run()) run->migrate_asked = true;
  if (operation.has_edit_event()) {
    run->sent[operation.edit_event().event()].insert(operation.edit_event().payload().data());
  }
  if (operation.has_replay_event()) {
    run->sent[operation.replay_event().event()].insert(operation.replay_event().payload().data());
  }
}

// ---- many at once ----

void Simulation::BulkLater() {
  timeline_.After(dice_.Between(1, dice_.Pick({1'000, 10'000})) * kMsUs, [this] {
    if (healed_) return;
    BulkLater();
    const Run& any = *runs_[dice_.Below(runs_.size())];
    v1::StartBulkOperationRequest request;
    *request.mutable_operation() = DrawOperation(absl::StrCat("s", dice_.Below(4)), *any.program);
    if (request.operation().kind_case() == v1::Operation::KIND_NOT_SET) return;
    request.mutable_filter()->set_query(
        dice_.Pick({"label.operated = \"yes\"", "label.operated = \"yes\" and status = \"running\"",
                    "label.operated in (\"yes\") and not status = \"completed\""}));
    if (dice_.OneIn(3)) request.mutable_filter()->set_workflow(any.program->definition.name());
    request.set_rate_per_second(static_cast<uint32_t>(dice_.Pick({0, 1, 20})));
    request.set_request_id(absl::StrCat("bulk-", bulks_asked_++));
    request.set_identity("operator");
    for (const std::unique_ptr<Run>& run : runs_) {
      if (run->operated) Asked(run.get(), request.operation());
    }
    if (verbose()) Note(absl::StrCat("operator: ", request.ShortDebugString()));
    StartBulk(request);
  });
}

void Simulation::StartBulk(const v1::StartBulkOperationRequest& request) {
  Ask<v1::StartBulkOperationResponse>(
      [request](engine::Engine& engine, Done<v1::StartBulkOperationResponse> done) {
        engine.StartBulk(request, std::move(done));
      },
      [this, request](const absl::StatusOr<v1::StartBulkOperationResponse>& answer) {
        if (verbose()) {
          Note(absl::StrCat("operator is told ",
                            answer.ok() ? answer->ShortDebugString() : answer.status().ToString()));
        }
        if (!answer.ok()) return;
        const std::string& id = answer->operation().id();
        const auto [known, fresh] = bulks_.try_emplace(request.request_id(), id);
        if (!fresh && known->second != id) {
          Problem(absl::StrCat(request.request_id(), " was bulk operation ", known->second,
                               " and is ", id));
        }
        // Once more: the same request id must change nothing.
        if (fresh && Strikes(plan_.again_permille)) StartBulk(request);
      });
}

void Simulation::EndBulks(std::function<void()> done) {
  Ask<v1::ListBulkOperationsResponse>(
      [](engine::Engine& engine, Done<v1::ListBulkOperationsResponse> reply) {
        engine.ListBulks(std::move(reply));
      },
      [this, done = std::move(done)](const absl::StatusOr<v1::ListBulkOperationsResponse>& list) {
        bool running = !list.ok();
        const v1::ListBulkOperationsResponse all =
            list.ok() ? *list : v1::ListBulkOperationsResponse();
        for (const v1::BulkOperation& bulk : all.operations()) {
          if (bulk.state() != v1::BULK_STATE_RUNNING) continue;
          running = true;
          if (dice_.OneIn(2)) continue;  // it comes to its end by itself
          v1::CancelBulkOperationRequest request;
          request.set_id(bulk.id());
          Ask<v1::CancelBulkOperationResponse>(
              [request](engine::Engine& engine, Done<v1::CancelBulkOperationResponse> reply) {
                engine.CancelBulk(request, std::move(reply));
              },
              [](const absl::StatusOr<v1::CancelBulkOperationResponse>&) {});
        }
        if (!running) return done();
        timeline_.After(500 * kMsUs, [this, done] { EndBulks(done); });
      });
}

void Simulation::Operate(Run* run, const v1::OperateExecutionRequest& request, bool insists) {
  if (verbose()) Note(absl::StrCat("operator: ", request.ShortDebugString()));
  Ask<v1::OperateExecutionResponse>(
      [request](engine::Engine& engine, Done<v1::OperateExecutionResponse> done) {
        engine.Operate(request, std::move(done));
      },
      [this, run, request, insists](const absl::StatusOr<v1::OperateExecutionResponse>& answer) {
        if (verbose()) {
          Note(absl::StrCat("operator is told ",
                            answer.ok() ? answer->detail() : answer.status().ToString()));
        }
        if (request.operation().has_cancel() || request.operation().has_terminate()) {
          if (!answer.ok()) return;
          run->cancelled = true;
          run->cancel_status = request.operation().has_cancel() ? v1::EXECUTION_STATUS_CANCELLED
                                                                : v1::EXECUTION_STATUS_TERMINATED;
        }
        // Where it may or may not have been done, it is asked for again only if twice is as once.
        if (!insists) return;
        if (absl::IsUnavailable(answer.status()) || absl::IsDataLoss(answer.status())) {
          timeline_.After(500 * kMsUs, [this, run, request] { Operate(run, request, true); });
        } else {
          --releasing_;
        }
      });
}

void Simulation::Release(Run* run) {
  releasing_ += 2;
  v1::OperateExecutionRequest request = OperationOn(*run);
  request.mutable_operation()->mutable_resume();
  Operate(run, request, /*insists=*/true);
  request.mutable_operation()->mutable_retry();
  Operate(run, request, /*insists=*/true);
}

// ---- looking ----

void Simulation::LookLater(Run* run, int64_t after_us) {
  timeline_.After(after_us, [this, run] {
    if (!healed_) Look(run);
  });
}

void Simulation::Look(Run* run) {
  LookLater(run, dice_.Between(100, 5'000) * kMsUs);
  switch (dice_.Below(4)) {
    case 0:
      return Verify(run);
    case 1: {
      v1::DescribeExecutionRequest request;
      *request.mutable_execution() = RefOf(*run);
      return Ask<v1::DescribeExecutionResponse>(
          [request](engine::Engine& engine, Done<v1::DescribeExecutionResponse> done) {
            engine.Describe(request, std::move(done));
          },
          [this, run](const absl::StatusOr<v1::DescribeExecutionResponse>& answer) {
            if (absl::IsNotFound(answer.status())) {
              Problem(absl::StrCat("the acknowledged execution ", run->id, " is not known"));
            }
          });
    }
    default: {
      v1::GetResultRequest request;
      *request.mutable_execution() = RefOf(*run);
      request.set_wait_ms(static_cast<uint32_t>(dice_.Between(0, 5'000)));
      const auto order = std::make_shared<uint64_t>(0);
      return Ask<v1::GetResultResponse>(
          [this, request, order](engine::Engine& engine, Done<v1::GetResultResponse> done) {
            engine.GetResult(request, [this, order, done = std::move(done)](
                                          absl::StatusOr<v1::GetResultResponse> answer) mutable {
              *order = ++answers_;
              done(std::move(answer));
            });
          },
          [this, run, order](const absl::StatusOr<v1::GetResultResponse>& answer) {
            if (answer.ok()) Saw(run, *answer, *order);
            if (absl::IsNotFound(answer.status())) {
              Problem(absl::StrCat("the acknowledged execution ", run->id, " is not known"));
            }
          });
    }
  }
}

void Simulation::Saw(Run* run, const v1::GetResultResponse& result, uint64_t order) {
  if (result.run_id() != run->run_id) {
    return Problem(absl::StrCat(run->id, " was run ", run->run_id, " and is ", result.run_id()));
  }
  if (IsOpen(result.status())) {
    if (run->closed && order > run->closed_order && !run->operated) {
      Problem(absl::StrCat(run->id, " was closed and is open again"));
    }
    return;
  }
  run->closed_order = run->closed ? std::min(run->closed_order, order) : order;
  if (!run->closed || run->operated) {
    run->closed = result;
  } else if (run->closed->SerializeAsString() != result.SerializeAsString()) {
    Problem(absl::StrCat("the result of ", run->id, " changed: ", run->closed->ShortDebugString(),
                         " and then ", result.ShortDebugString()));
  }
}

void Simulation::Verify(Run* run) {
  v1::VerifyExecutionRequest request;
  *request.mutable_execution() = RefOf(*run);
  Ask<v1::VerifyExecutionResponse>(
      [request](engine::Engine& engine, Done<v1::VerifyExecutionResponse> done) {
        engine.Verify(request, std::move(done));
      },
      [this, run](const absl::StatusOr<v1::VerifyExecutionResponse>& answer) {
        if (answer.ok() && !answer->equal()) {
          Problem(absl::StrCat("replay of ", run->id, " differs: ", answer->difference()));
        }
      });
}

void Simulation::OnUp() {
  if (!verify_after_crashes_ || healed_) return;
  for (const std::unique_ptr<Run>& run : runs_) {
    if (!run->run_id.empty()) Verify(run.get());
  }
}

}  // namespace flux::sim
