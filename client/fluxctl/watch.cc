#include <algorithm>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/fluxctl/canvas.h"
#include "client/fluxctl/commands.h"
#include "client/fluxctl/interrupt.h"
#include "client/fluxctl/live.h"
#include "client/fluxctl/view.h"
#include "proto/bridge.h"

namespace flux::ctl {
namespace {

// A silent stream may be one whose other end is gone without a word, so it is renewed after this
// long.
constexpr absl::Duration kStreamMax = absl::Seconds(60);
constexpr absl::Duration kRedrawEvery = absl::Milliseconds(200);
constexpr absl::Duration kReconnectAfterMin = absl::Milliseconds(100);
constexpr absl::Duration kReconnectAfterMax = absl::Seconds(1);

// What the reader of a stream has for the one who draws.
struct Event {
  std::optional<v1::WatchExecutionResponse> response;
  std::optional<grpc::Status> end;
};

class Mailbox {
 public:
  void Push(Event event) {
    {
      const std::lock_guard lock(mutex_);
      events_.push_back(std::move(event));
    }
    arrived_.notify_one();
  }

  // Waits at most `timeout` (which may be infinite).
  std::optional<Event> Pop(absl::Duration timeout) {
    std::unique_lock lock(mutex_);
    const auto ready = [this] { return !events_.empty(); };
    if (timeout == absl::InfiniteDuration()) {
      arrived_.wait(lock, ready);
    } else if (!arrived_.wait_for(lock, absl::ToChronoNanoseconds(timeout), ready)) {
      return std::nullopt;
    }
    Event event = std::move(events_.front());
    events_.pop_front();
    return event;
  }

 private:
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::deque<Event> events_;
};

// One WatchExecution call and the thread that reads it. The destructor cancels the call and joins.
class Stream {
 public:
  Stream(Connection& connection, const v1::ExecutionRef& ref, absl::Time deadline,
         Mailbox& mailbox) {
    context_.set_deadline(ToDeadline(deadline));
    // An address that never answered fails at once; one that did is waited for, and taken up as
    // soon as it is back.
    context_.set_wait_for_ready(connection.reached());
    v1::WatchExecutionRequest request;
    *request.mutable_execution() = ref;
    reader_ = connection.workflows().WatchExecution(&context_, request);
    thread_ = std::thread([this, &mailbox] {
      v1::WatchExecutionResponse response;
      while (reader_->Read(&response)) mailbox.Push({.response = std::move(response), .end = {}});
      mailbox.Push({.response = {}, .end = reader_->Finish()});
    });
  }
  ~Stream() {
    context_.TryCancel();
    thread_.join();
  }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

 private:
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<v1::WatchExecutionResponse>> reader_;
  std::thread thread_;
};

// Shows a watched execution.
class Viewer {
 public:
  Viewer(Context& context, WatchTo to) : context_(context), to_(to), canvas_(context, to) {
    if (canvas_.live()) guard_.emplace();
  }

  bool live() const { return canvas_.live(); }

  void Show(Progress& progress, const v1::WatchExecutionResponse& response) {
    const std::vector<std::string> lines = progress.Update(response, absl::Now());
    if (to_ == WatchTo::kOutJsonLines) {
      context_.Print(ToJson(response));
      context_.console.FlushOut();
    } else if (live()) {
      Redraw(progress);
    } else if (to_ != WatchTo::kNowhere) {
      for (const std::string& line : lines) canvas_.Line(line);
    }
  }

  void Redraw(const Progress& progress) {
    if (!live() || !progress.started()) return;
    const Theme& theme = canvas_.Measure();
    canvas_.Draw(progress.View(theme, canvas_.rows(), absl::Now()));
  }

  void Note(std::string_view text) { canvas_.Note(text); }
  void Close() { canvas_.Close(); }

 private:
  Context& context_;
  const WatchTo to_;
  std::optional<InterruptGuard> guard_;
  Canvas canvas_;
};

}  // namespace

absl::StatusOr<v1::WatchExecutionResponse> Follow(Context& context, v1::ExecutionRef ref,
                                                  WatchTo to) {
  Connection& connection = context.connection;
  const absl::Time deadline = connection.deadline();
  Viewer viewer(context, to);
  Progress progress;
  absl::Duration pause = kReconnectAfterMin;
  bool lost = false;

  // Waits for the reader, drawing meanwhile; nothing comes back if the time is over or a person
  // interrupts.
  const auto wait = [&](Mailbox& mailbox, absl::Time until) -> std::optional<Event> {
    while (!InterruptGuard::Interrupted()) {
      absl::Duration left = until - absl::Now();
      if (left <= absl::ZeroDuration()) return std::nullopt;
      if (viewer.live()) left = std::min(left, kRedrawEvery);
      if (std::optional<Event> event = mailbox.Pop(left)) return event;
      viewer.Redraw(progress);
    }
    return std::nullopt;
  };

  while (true) {
    grpc::Status end;
    bool answered = false;
    {
      Mailbox mailbox;
      Stream stream(connection, ref, std::min(deadline, absl::Now() + kStreamMax), mailbox);
      while (true) {
        // The stream has a deadline and says so itself; waiting without one cannot hang.
        std::optional<Event> event = wait(mailbox, absl::InfiniteFuture());
        if (!event.has_value()) break;
        if (event->end.has_value()) {
          end = *event->end;
          break;
        }
        answered = true;
        if (lost) viewer.Note(absl::StrCat("connected to ", connection.address(), " again"));
        lost = false;
        pause = kReconnectAfterMin;
        connection.set_reached();
        progress.set_connected(true);
        viewer.Show(progress, *event->response);
        // A later execution of the same workflow id is not the one that was asked for.
        ref.set_run_id(event->response->info().run_id());
        if (event->response->closed()) {
          viewer.Close();
          return std::move(*event->response);
        }
      }
    }
    if (InterruptGuard::Interrupted()) {
      viewer.Close();
      context.console.Note(absl::StrCat("stopped watching; ", ref.workflow_id(),
                                        " goes on (fluxctl workflow watch ", ref.workflow_id(),
                                        " returns to it)"));
      return absl::CancelledError("interrupted");
    }
    const bool expired = absl::Now() >= deadline;
    // Every stream begins with the present state, so one that said nothing until its end has nobody
    // behind it.
    const bool renewed = end.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED;
    if (!expired && renewed && answered) continue;
    if (expired) {
      viewer.Close();
      return WithHint(
          absl::DeadlineExceededError(absl::StrCat(
              ref.workflow_id(), progress.started() ? " is still " : " has not answered",
              progress.started() ? StatusName(progress.last().info().status()) : std::string(),
              " at the end of --timeout", lost ? ", and fluxd is not to be reached" : "")),
          absl::StrCat("it goes on; 'fluxctl workflow watch ", ref.workflow_id(),
                       "' returns to it"));
    }
    // A stream that ends well before the execution has closed is a server on its way out.
    if (!(end.ok() || renewed || Connection::IsLostConnection(end)) || !connection.reached()) {
      viewer.Close();
      return connection.ToStatus(
          end.ok() ? grpc::Status(grpc::StatusCode::UNAVAILABLE, "the stream ended early") : end);
    }
    if (!lost) {
      viewer.Note(absl::StrCat("lost the connection to ", connection.address(), "; trying again"));
      lost = true;
      progress.set_connected(false);
    }
    Mailbox nothing;
    wait(nothing, std::min(deadline, absl::Now() + pause));
    pause = std::min(pause * 2, kReconnectAfterMax);
  }
}

}  // namespace flux::ctl
