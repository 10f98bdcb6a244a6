// Sockets: what is no request, what never becomes one, slow and silent clients, and that none of it disturbs anybody else.
#include <algorithm>
#include <chrono>
#include <random>
#include <thread>

#include "server/http/request_scan.h"
#include "tests/server/server_util.h"

namespace lutra {
namespace {

using server::ChunkDecoder;
using server::RequestHead;
using server::ScanHead;
using testing::HttpPost;
using testing::Json;
using testing::Socket;
using testing::StatusOf;
using testing::TestOptions;
using testing::TestServer;

RequestHead Scan(const std::string& head) { return ScanHead(head, 100, 1000, 8192); }

double Seconds(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

TEST_CASE("Heads: good ones pass without what we do not serve, doubtful ones are refused") {
  const RequestHead good = Scan(
      "POST /v1/x?y=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\nRange: "
      "bytes=0-1\r\nAccept-Encoding: gzip\r\nX-Y: z\r\n\r\n");
  CHECK(good.error == 0);
  CHECK(good.path == "/v1/x");
  CHECK(good.content_length == 12);
  CHECK(good.text == "POST /v1/x?y=1 HTTP/1.1\r\nHost: a\r\nX-Y: z\r\n\r\n");
  const std::pair<const char*, int> cases[] = {
      {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 0},
      {"GET / HTTP/1.0\r\n\r\n", 0},
      {"GET / HTTP/1.1\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400},
      {"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505},
      {"BREW / HTTP/1.1\r\nHost: a\r\n\r\n", 501},
      {"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"GET / x HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"GET\r\nHost: a\r\n\r\n", 400},
      {"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"GET / HTTP/1.1\nHost: a\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nHost: a\r\nA : b\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nHost: a\r\nNo colon\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nHost: a\r\nA: b\x01\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
       400},
      {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501},
      {"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n", 413},
      {"POST / HTTP/1.1\r\nHost: a\r\nContent-Encoding: br\r\n\r\n", 415},
      {"POST / HTTP/1.1\r\nHost: a\r\nExpect: a miracle\r\n\r\n", 417},
  };
  for (const auto& [head, status] : cases) {
    INFO(head);
    CHECK(Scan(head).error == status);
  }
  std::string many = "GET / HTTP/1.1\r\nHost: a\r\n";
  for (int i = 0; i < 100; ++i) many += "A: b\r\n";
  CHECK(Scan(many + "\r\n").error == 431);
  CHECK(Scan("GET /" + std::string(8192, 'a') + " HTTP/1.1\r\nHost: a\r\n\r\n").error == 414);
}

TEST_CASE("Chunks, however they are cut") {
  const std::string body = "4;ext=1\r\nabcd\r\n00a\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n";
  for (size_t piece = 1; piece < 20; ++piece) {
    ChunkDecoder d(100);
    std::string out;
    size_t at = 0;
    while (at < body.size() && !d.done() && d.error() == 0) {
      const size_t n = std::min(piece, body.size() - at);
      at += d.Feed(std::string_view(body).substr(at, n), &out);
    }
    CHECK(d.done());
    CHECK(at == body.size());
    CHECK(out == "abcd0123456789");
  }
  const std::pair<const char*, int> bad[] = {{"-2\r\n", 400},
                                             {"ffffffffffffffffff\r\n", 400},
                                             {"\r\n", 400},
                                             {"5 \r\nabcde\r\n", 400},
                                             {"5\nabcde", 400},
                                             {"3\r\nabcX", 400},
                                             {"3\r\nabc\rX", 400},
                                             {"65\r\n", 413},
                                             {"fffffffffffffff\r\n", 413},
                                             {"0\r\n\n", 400}};
  for (const auto& [text, status] : bad) {
    INFO(text);
    ChunkDecoder d(100);
    std::string out;
    d.Feed(text, &out);
    CHECK(d.error() == status);
  }
}

TEST_CASE("Requests over a bare socket") {
  server::ServerOptions options = TestOptions();
  options.http.body_bytes = 20000;
  const TestServer server(options);
  const std::string chat = R"({"messages":[{"role":"user","content":"hi"}],"max_tokens":3})";
  // Two in one packet, answered in order on one connection.
  {
    Socket s(server.port);
    s.Send("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n" +
           HttpPost("/v1/chat/completions", chat) +
           "GET /version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    const std::string all = s.Read();
    const size_t a = all.find("\"status\":\"ok\""), b = all.find("chat.completion"),
                 c = all.find("\"version\"");
    CHECK(a < b);
    CHECK(b < c);
    CHECK(c != std::string::npos);
  }
  // Byte by byte, and in chunks.
  {
    Socket s(server.port);
    for (const char c :
         std::string("GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
      s.Send(std::string(1, c));
    CHECK(StatusOf(s.Read()) == 200);
  }
  {
    Socket s(server.port);
    s.Send(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: "
        "chunked\r\nConnection: close\r\n\r\n");
    for (size_t at = 0; at < chat.size(); at += 10) {
      const std::string part = chat.substr(at, 10);
      s.Send(Format("%zx\r\n", part.size()) + part + "\r\n");
    }
    s.Send("0\r\n\r\n");
    CHECK(StatusOf(s.Read()) == 200);
  }
  {
    Socket s(server.port);
    s.Send(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nExpect: "
        "100-continue\r\nConnection: close\r\nContent-Length: " +
        std::to_string(chat.size()) + "\r\n\r\n");
    CHECK(s.Read(5000, "\r\n\r\n").starts_with("HTTP/1.1 100"));
    s.Send(chat);
    CHECK(StatusOf(s.Read()) == 200);
  }
  // HTTP/1.0 is closed after the answer.
  {
    Socket s(server.port);
    s.Send("GET /health HTTP/1.0\r\n\r\n");
    CHECK(StatusOf(s.Read()) == 200);
  }
  const std::pair<std::string, int> bad[] = {
      {"\x16\x03\x01\x02\x01\xFC\x03\x03\r\n\r\n", 400},
      {"GET /health HTTP/1.1\r\nHost: localhost\r\n" + std::string(20000, 'a'), 431},
      {"GET /" + std::string(20000, 'a'), 414},
      {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 120000000\r\n\r\n", 413},
      {"POST /x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n", 413},
      {"POST /x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\n", 400},
      {"GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 404},
      {"GET /%2e%2e/%00 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 404},
      {"GET /health HTTP/1.1\r\nHost: localhost\r\nOrigin: x%0d%0aSet-Cookie: a\r\nRange: "
       "bytes=0-0\r\nConnection: close\r\n\r\n",
       200},
  };
  for (const auto& [text, status] : bad) {
    Socket s(server.port);
    s.Send(text);
    const std::string answer = s.Read();
    INFO(text.substr(0, 60));
    CHECK(StatusOf(answer) == status);
    CHECK(answer.find("Set-Cookie") == std::string::npos);
    if (status != 200) {
      const Json body = Json::parse(answer.substr(answer.find("\r\n\r\n") + 4), nullptr, false);
      REQUIRE(body.is_object());
      CHECK(body["error"]["message"].is_string());
    }
  }
  CHECK(server.Get("/health").status == 200);
}

TEST_CASE("Hundreds of half requests delay nobody, and are closed in time") {
  server::ServerOptions options = TestOptions();
  options.http.head_seconds = 1.5;
  options.http.body_gap_seconds = 1.5;
  const TestServer server(options);
  std::vector<Socket> idle;
  for (int i = 0; i < 450; ++i) {
    idle.emplace_back(server.port);
    if (i % 3 == 0) idle.back().Send("GET /health HT");
    if (i % 3 == 1)
      idle.back().Send(
          "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: "
          "1000\r\n\r\n{\"mess");
  }
  // Readers that never read beside them.
  for (int i = 0; i < 3; ++i) {
    idle.emplace_back(server.port);
    idle.back().Send(
        HttpPost("/v1/completions",
                 R"({"prompt":"Once","stream":true,"ignore_eos":true,"max_tokens":400})"));
  }
  double worst = 0;
  for (int i = 0; i < 20; ++i) {
    const auto start = std::chrono::steady_clock::now();
    CHECK(server.Get("/health").status == 200);
    worst = std::max(worst, Seconds(start));
  }
  INFO("slowest /health ", worst);
  CHECK(worst < 0.5);  // a loaded machine's scheduling included; on a quiet one it is a millisecond
  CHECK(server.Post("/v1/completions", Json{{"prompt", "Once"}, {"max_tokens", 4}}).status == 200);
  const auto start = std::chrono::steady_clock::now();
  int closed = 0, told = 0;
  for (int i = 0; i < 30; ++i) {
    const std::string answer = idle[static_cast<size_t>(i)].Read(8000);
    closed += answer.empty() || StatusOf(answer) == 408;
    told += StatusOf(answer) == 408;
  }
  CHECK(closed == 30);
  CHECK(told == 20);
  CHECK(Seconds(start) < 12);
}

TEST_CASE("A client that goes away ends its own work at once and nobody else's") {
  const TestServer server;
  Scheduler& scheduler = server.server->app().models()[0]->scheduler();
  const Json body = {{"prompt", "Once upon a time"}, {"temperature", 0}, {"max_tokens", 120}};
  const Json expected = server.Post("/v1/completions", body).json["choices"];
  std::mt19937 rng(5);
  std::atomic<bool> stop{false};
  std::atomic<int> same{0}, other{0};
  std::thread steady([&] {
    while (!stop) {
      auto c = server.Client();
      const auto r = c.Post("/v1/completions", server::Dump(body), "application/json");
      if (r && r->status == 200) ++(Json::parse(r->body)["choices"] == expected ? same : other);
    }
  });
  for (int i = 0; i < 150; ++i) {
    Socket s(server.port);
    Json noise = {{"prompt", "The dog " + std::to_string(rng() % 5)},
                  {"ignore_eos", true},
                  {"max_tokens", 450},
                  {"stream", rng() % 2 == 0}};
    const std::string request = HttpPost("/v1/completions", server::Dump(noise));
    const size_t n = rng() % 3 == 0 ? rng() % request.size() : request.size();
    s.Send(request.substr(0, n));
    if (rng() % 2 == 0) s.Read(static_cast<int>(rng() % 20), "data: ");
  }
  stop = true;
  steady.join();
  CHECK(same > 0);
  CHECK(other == 0);
  for (int i = 0; i < 300 && scheduler.stats().running + scheduler.stats().queued > 0; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  const SchedulerStats stats = scheduler.stats();
  CHECK(stats.running == 0);
  CHECK(stats.queued == 0);
  CHECK(stats.kv_pages_used == stats.kv_pages_cached);
  CHECK(stats.cancelled > 0);
  CHECK(stats.failed == 0);
}

TEST_CASE("A stream that waits is kept alive by bare comments") {
  server::ServerOptions options = TestOptions(1);
  options.app.ping_seconds = 0.05;
  const TestServer server(options);
  std::thread first([&] {
    auto c = server.Client();
    c.Post("/v1/completions", R"({"prompt":"Once","ignore_eos":true,"max_tokens":480,"n":16})",
           "application/json");
  });
  Scheduler& scheduler = server.server->app().models()[0]->scheduler();
  while (scheduler.stats().requests < 16) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  // Behind all of these, as it is of the same client.
  const auto a = server.Post(
      "/v1/chat/completions",
      Json::parse(R"({"messages":[{"role":"user","content":"x"}],"stream":true,"max_tokens":3})"));
  first.join();
  INFO(a.body);
  CHECK(a.status == 200);
  CHECK(a.body.starts_with(":\n\n"));
  CHECK(a.body.ends_with("data: [DONE]\n\n"));
}

TEST_CASE("Stopping lets answers end within the bound, then cancels; the port is free at once") {
  server::ServerOptions options = TestOptions();
  options.drain_seconds = static_cast<double>(testing::Patience(20).count()) / 1e3;
  auto server = std::make_unique<TestServer>(options);
  const int port = server->port;
  httplib::Result result(nullptr, httplib::Error::Unknown);
  std::thread client([&] {
    auto c = server->Client();
    result = c.Post("/v1/completions", R"({"prompt":"Once","ignore_eos":true,"max_tokens":400})",
                    "application/json");
  });
  Scheduler& scheduler = server->server->app().models()[0]->scheduler();
  for (int i = 0; i < 500 && scheduler.stats().requests == 0; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  server->server->Stop();
  client.join();
  REQUIRE(static_cast<bool>(result));
  CHECK(result->status == 200);
  CHECK(Json::parse(result->body)["usage"]["completion_tokens"] == 400);
  server.reset();
  // Without time left, streams end with an event that says why.
  options.drain_seconds = 0;
  server = std::make_unique<TestServer>(options);
  std::string streamed;
  std::atomic<bool> begun{false};
  std::thread reader([&] {
    auto c = server->Client();
    const auto take = [&](const char* data, size_t size) {
      streamed.append(data, size);
      begun = true;
      return true;
    };
    httplib::Request request;
    request.method = "POST";
    request.path = "/v1/chat/completions";
    request.set_header("Content-Type", "application/json");
    request.body =
        R"({"messages":[{"role":"user","content":"x"}],"stream":true,"ignore_eos":true,"n":4})";
    request.content_receiver = [&](const char* data, size_t size, uint64_t, uint64_t) {
      return take(data, size);
    };
    result = c.send(request);
  });
  while (!begun) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  server->server->Stop();
  reader.join();
  REQUIRE(static_cast<bool>(result));
  const std::string end = streamed.substr(streamed.size() - std::min<size_t>(streamed.size(), 120));
  INFO(end);
  const bool told =
      end.find("shutting down") != std::string::npos || end.ends_with("data: [DONE]\n\n");
  CHECK(told);
  server.reset();
  options.port = port;
  const TestServer again(options);
  CHECK(again.port == port);
  CHECK(again.Get("/health").status == 200);
  server::ServerOptions taken = options;
  server::LutraServer second(taken);
  CHECK_THROWS_AS(second.Start(), Error);
}

}  // namespace lutra
