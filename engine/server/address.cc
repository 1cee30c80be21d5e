#include "engine/server/address.h"

#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace flux::server {
namespace {

using Addresses = std::unique_ptr<addrinfo, decltype(&freeaddrinfo)>;

absl::StatusOr<Addresses> Resolve(const std::string& address) {
  const size_t colon = address.rfind(':');
  std::string host = address.substr(0, colon);
  uint32_t port = 0;
  const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
  if (colon == std::string::npos || host.empty() ||
      !absl::SimpleAtoi(address.substr(colon + 1), &port) || port > 65535 ||
      (!bracketed && absl::StrContains(host, ':'))) {
    return absl::InvalidArgumentError(
        absl::StrCat("cannot listen on \"", address,
                     "\": an address is HOST:PORT, as 127.0.0.1:4510, 0.0.0.0:4510 or [::]:4510"));
  }
  if (bracketed) host = host.substr(1, host.size() - 2);
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  if (const int error = getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
      error != 0) {
    return absl::InvalidArgumentError(absl::StrCat("cannot listen on ", address, ": \"", host,
                                                   "\": ", gai_strerror(error),
                                                   " (choose another with --listen)"));
  }
  return Addresses(found, &freeaddrinfo);
}

}  // namespace

absl::Status CheckListenAddress(const std::string& address) {
  if (absl::StartsWith(address, "unix:")) return absl::OkStatus();
  return Resolve(address).status();
}

absl::Status ListenFailure(const std::string& address) {
  const absl::StatusOr<Addresses> addresses = Resolve(address);
  int error = 0;
  for (const addrinfo* at = addresses.ok() ? addresses->get() : nullptr; at != nullptr;
       at = at->ai_next) {
    const int fd = socket(at->ai_family, at->ai_socktype | SOCK_CLOEXEC, at->ai_protocol);
    if (fd < 0) continue;
    const int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(fd, at->ai_addr, at->ai_addrlen) != 0 || listen(fd, 1) != 0) error = errno;
    close(fd);
  }
  const std::string why = error == EADDRINUSE      ? "another process listens there"
                          : error == EADDRNOTAVAIL ? "it is not an address of this machine"
                          : error == EACCES        ? "this user may not listen on that port"
                          : error != 0             ? strerror(error)
                                                   : "it cannot be had";
  return absl::UnavailableError(
      absl::StrCat("cannot listen on ", address, ": ", why, " (choose another with --listen)"));
}

}  // namespace flux::server
