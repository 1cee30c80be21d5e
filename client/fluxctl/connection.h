// The way to a coordinator: one gRPC channel, calls with a deadline, errors turned into statuses
// that name the address and say what to do.
#ifndef FLUX_CLIENT_FLUXCTL_CONNECTION_H_
#define FLUX_CLIENT_FLUXCTL_CONNECTION_H_

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "flux/v1/admin.grpc.pb.h"
#include "flux/v1/bulk.grpc.pb.h"
#include "flux/v1/schedule.grpc.pb.h"
#include "flux/v1/workflow.grpc.pb.h"

namespace flux::ctl {

// A channel and its stubs; connects on first use. Used by one thread, except that streams may be
// read elsewhere.
class Connection {
 public:
  // `timeout`, where given, bounds every call together, from now on. Otherwise each call has
  // kCallTimeout of its own, and watching has no end.
  Connection(std::string address, std::optional<absl::Duration> timeout);

  v1::WorkflowService::Stub& workflows() { return *workflows_; }
  v1::AdminService::Stub& admin() { return *admin_; }
  v1::ScheduleService::Stub& schedules() { return *schedules_; }
  v1::BulkService::Stub& bulks() { return *bulks_; }
  const std::string& address() const { return address_; }
  // When everything must be over; infinite without a timeout.
  absl::Time deadline() const { return deadline_; }

  // One unary call, blocking: Call(workflows(), &WorkflowService::Stub::GetResult, request). Every
  // call of ours may be repeated (reads; starts carry a request id; stopping twice is stopping), so
  // one that was cut off is sent again until its deadline. An address that never answered fails at
  // once.
  template <typename Stub, typename Request, typename Response>
  absl::StatusOr<Response> Call(
      Stub& stub, grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
      const Request& request, absl::Duration extra = absl::ZeroDuration()) {
    Response response;
    absl::Status status = Repeat(
        [&](grpc::ClientContext* context) {
          response.Clear();
          return (stub.*method)(context, request, &response);
        },
        extra);
    if (!status.ok()) return status;
    NoteTime(response);
    return response;
  }

  // The same for what would do more if it were done twice: sent once. Unavailable and
  // DeadlineExceeded then say that it may have been done.
  template <typename Stub, typename Request, typename Response>
  absl::StatusOr<Response> CallOnce(Stub& stub,
                                    grpc::Status (Stub::*method)(grpc::ClientContext*,
                                                                 const Request&, Response*),
                                    const Request& request) {
    Response response;
    absl::Status status = Once(
        [&](grpc::ClientContext* context) { return (stub.*method)(context, request, &response); });
    if (!status.ok()) return status;
    NoteTime(response);
    return response;
  }

  // Takes the coordinator's time from an answer that tells it.
  template <typename Response>
  void NoteTime(const Response& response) {
    if constexpr (requires { response.server_time_ms(); }) {
      if (response.server_time_ms() != 0) {
        server_time_ = absl::FromUnixMillis(response.server_time_ms());
      }
    }
  }
  // As the last answer that told it had it; none before that.
  std::optional<absl::Time> server_time() const { return server_time_; }

  // For streams: whether a call that ended so is worth repeating, given that it once worked.
  static bool IsLostConnection(const grpc::Status& status);
  absl::Status ToStatus(const grpc::Status& status) const;
  // Tells that the address has answered once, so that losing it later is worth waiting out.
  void set_reached() { reached_ = true; }
  bool reached() const { return reached_; }

 private:
  absl::Status Once(const std::function<grpc::Status(grpc::ClientContext*)>& call);
  absl::Status Repeat(const std::function<grpc::Status(grpc::ClientContext*)>& call,
                      absl::Duration extra);

  const std::string address_;
  const absl::Time deadline_;
  bool reached_ = false;
  std::optional<absl::Time> server_time_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::WorkflowService::Stub> workflows_;
  std::unique_ptr<v1::AdminService::Stub> admin_;
  std::unique_ptr<v1::ScheduleService::Stub> schedules_;
  std::unique_ptr<v1::BulkService::Stub> bulks_;
};

// gRPC deadlines want a system_clock; an infinite time becomes the far future.
std::chrono::system_clock::time_point ToDeadline(absl::Time time);

}  // namespace flux::ctl

#endif  // FLUX_CLIENT_FLUXCTL_CONNECTION_H_
