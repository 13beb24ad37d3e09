"""What providers and engines say, as they document it or as their users have reported it: statuses, headers and bodies."""

import json
from dataclasses import dataclass, field
from typing import Any

from starlette.responses import JSONResponse


@dataclass(frozen=True)
class Said:
    """An answer."""

    status: int
    body: Any
    headers: dict = field(default_factory=dict)

    def response(self):
        return JSONResponse(self.body, status_code=self.status, headers=self.headers)


@dataclass(frozen=True)
class Provider:
    """What one says. ``read``: content, reasoning and finish reason of its ``success``. None: it says no such thing."""

    success: dict
    read: tuple[str, str, str]
    refuses: tuple[str, Any]  # a key of a request, and its value
    unknown: Said | None  # to that; None: it passes over the key in silence
    busy: Said
    long: Said | None
    filtered: Said | None
    overloaded: Said


def error(status, message, headers=None, **others):
    return Said(status, {"error": {"message": message, **others}}, headers or {})


def answer(finish_reason, message, **others):
    """A chat completion with one choice."""
    choice = {"index": 0, "finish_reason": finish_reason, "message": {"role": "assistant", **message}, **others}
    usage = {"prompt_tokens": 9, "completion_tokens": 7, "total_tokens": 16}
    return {"id": "c-1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}


def gemini(code, message, status, *details):
    return Said(code, [{"error": {"code": code, "message": message, "status": status, "details": [*details]}}])


def mistral(status, message, kind, code=None):
    return Said(status, {"object": "error", "message": message, "type": kind, "param": None, "code": code})


def sglang(message, status=400):
    return Said(status, {"object": "error", "message": message, "type": "BadRequestError", "param": None, "code": status})


INVALID = {"type": "invalid_request_error", "param": None}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "ratings", "schema": {}}}
PLAIN = answer("stop", {"content": "It is 2.", "refusal": None})
READ = ("It is 2.", "", "stop")
NO_SEED = [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted", "input": 10}]
UNKNOWN_SEED = 'Invalid JSON payload received. Unknown name "seed": Cannot find field.'
CONTEXT = "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens (4744 in the messages, 256 in "
CONTEXT += "the completion). Please reduce the length of the messages or completion."
AZURE_FILTER = (
    "The response was filtered due to the prompt triggering Azure OpenAI's content management policy. Please modify your "
)
AZURE_FILTER += "prompt and retry. To learn more about our content filtering policies please read our documentation"
LITERAL = "[{'type': 'literal_error', 'loc': ('body', 'reasoning_effort'), 'msg': \"Input should be 'low', 'medium' or 'high'\"}]"

PROVIDERS = {
    "openai": Provider(
        PLAIN,
        READ,
        ("temperature", 0.6),
        error(
            400,
            "Unsupported value: 'temperature' does not support 0.6 with this model. Only the default (1) value is supported.",
            type="invalid_request_error",
            param="temperature",
            code="unsupported_value",
        ),
        error(
            429,
            "Rate limit reached for m in organization org-x on tokens per min (TPM): Limit 30000, Used 29500, Requested 900. "
            "Please try again in 800ms. Visit https://platform.openai.com/account/rate-limits to learn more.",
            {"retry-after-ms": "20", "x-ratelimit-remaining-tokens": "0"},
            type="tokens",
            param=None,
            code="rate_limit_exceeded",
        ),
        error(400, CONTEXT, type="invalid_request_error", param="messages", code="context_length_exceeded"),
        error(400, "Invalid prompt: your prompt was flagged as potentially violating our usage policy.", **INVALID),
        error(503, "That model is currently overloaded with other requests.", type="server_error", param=None, code=None),
    ),
    "azure": Provider(
        answer("stop", {"content": "It is 2."}, content_filter_results={"hate": {"filtered": False, "severity": "safe"}}),
        READ,
        ("max_tokens", 50),
        error(
            400,
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
            type="invalid_request_error",
            param="max_tokens",
            code="unsupported_parameter",
        ),
        error(
            429,
            "Requests to the ChatCompletions_Create Operation have exceeded token rate limit of your current OpenAI S0 pricing "
            "tier. Please retry after 1 second.",
            {"retry-after": "1"},
            code="429",
        ),
        error(400, CONTEXT, type="invalid_request_error", param="messages", code="context_length_exceeded"),
        error(
            400,
            AZURE_FILTER,
            type=None,
            param="prompt",
            code="content_filter",
            innererror={"code": "ResponsibleAIPolicyViolation", "content_filter_result": {"violence": {"filtered": True}}},
        ),
        Said(503, {"statusCode": 503, "message": "Service Unavailable"}),
    ),
    "anthropic": Provider(
        answer("end_turn", {"content": "It is 2."}),
        READ,
        ("top_p", 1),
        error(400, "`temperature` and `top_p` cannot both be specified for this model. Please use only one.", **INVALID),
        error(429, "This request would exceed your organization's rate limit", {"retry-after": "0"}, type="rate_limit_error"),
        error(400, "prompt is too long: 210000 tokens > 200000 maximum", **INVALID),
        error(400, "Output blocked by content filtering policy", **INVALID),
        error(529, "Overloaded", type="overloaded_error"),
    ),
    "gemini": Provider(
        answer("STOP", {"content": "It is 2."}),
        READ,
        ("seed", 10),
        gemini(
            400, UNKNOWN_SEED, "INVALID_ARGUMENT", {"@type": "x.BadRequest", "fieldViolations": [{"description": UNKNOWN_SEED}]}
        ),
        gemini(429, "You exceeded your current quota, please check your plan and billing details.", "RESOURCE_EXHAUSTED"),
        gemini(
            400, "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).", "INVALID_ARGUMENT"
        ),
        Said(200, {"object": "chat.completion", "choices": [{"index": 0, "finish_reason": "SAFETY"}], "usage": {}}),
        gemini(503, "The model is overloaded. Please try again later.", "UNAVAILABLE"),
    ),
    "mistral": Provider(
        answer(
            "stop",
            {
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "1 and 1"}], "closed": True},
                    {"type": "text", "text": "It is 2."},
                ]
            },
        ),
        ("It is 2.", "1 and 1", "stop"),
        ("seed", 10),
        mistral(422, {"detail": NO_SEED}, "invalid_request_error"),
        mistral(429, "Requests rate limit exceeded", "rate_limited", "1300"),
        mistral(
            400, "Prompt contains 40000 tokens, too large for model with 32768 maximum context length", "invalid_request_prompt"
        ),
        mistral(403, "The request was blocked by moderation: violence_and_threats", "guardrail_violation"),
        mistral(503, "Service unavailable.", "unreachable_backend", "1100"),
    ),
    "mistral_through_a_proxy": Provider(
        PLAIN,
        READ,
        ("seed", 10),
        mistral(422, json.dumps({"detail": NO_SEED}), "internal_error_proxy", "1000"),
        mistral(429, "Service tier capacity exceeded for this model.", "service_tier_capacity_exceeded", "3505"),
        None,
        None,
        Said(502, "<html><body>502 Bad Gateway</body></html>"),
    ),
    "deepseek": Provider(
        answer("stop", {"content": "It is 2.", "reasoning_content": "1 and 1"}),
        ("It is 2.", "1 and 1", "stop"),
        ("response_format", SCHEMA),
        error(400, "This response_format type is unavailable now", code="invalid_request_error", **INVALID),
        error(429, "Rate Limit Reached", type="rate_limit_error"),
        error(400, CONTEXT, code="invalid_request_error", **INVALID),
        error(400, "Content Exists Risk", code="invalid_request_error", **INVALID),
        Said(200, answer("insufficient_system_resource", {"content": "It"})),
    ),
    "together": Provider(
        answer("eos", {"content": "It is 2.", "tool_calls": []}),
        READ,
        ("response_format", SCHEMA),
        error(422, "response_format of type json_schema is not supported for this model", code=None, **INVALID),
        error(429, "Request was rejected due to rate limiting.", type="rate_limit"),
        error(
            422,
            "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4097. Given: 4100 `inputs` tokens",
            **INVALID,
        ),
        None,
        error(503, "The server is overloaded", type="service_unavailable"),
    ),
    "groq": Provider(
        answer("stop", {"content": "It is 2.", "reasoning": "1 and 1"}),
        ("It is 2.", "1 and 1", "stop"),
        ("n", 2),
        error(400, "'n' : number must be at most 1", type="invalid_request_error"),
        error(429, "Rate limit reached for model `m`", {"retry-after": "0.01"}, type="tokens", code="rate_limit_exceeded"),
        error(
            413,
            "Request too large for model `m` on tokens per minute (TPM): Limit 6000, Requested 7214, please reduce your message",
            type="tokens",
            code="rate_limit_exceeded",
        ),
        None,
        Said(498, {"error": {"message": "Flex tier capacity exceeded", "type": "capacity_exceeded"}}),
    ),
    "fireworks": Provider(
        PLAIN,
        READ,
        ("top_k", 20),
        error(400, "Extra inputs are not permitted, field: 'top_k', value: 20", object="error", type="invalid_request_error"),
        error(429, "Request rate limit exceeded", object="error", type="rate_limit_exceeded"),
        error(400, "The prompt is too long: 40000, model maximum context length: 32767", type="invalid_request_error"),
        None,
        error(503, "Service overloaded, please try again later", object="error", type="internal_server_error"),
    ),
    "openrouter": Provider(
        answer("stop", {"content": "It is 2.", "reasoning": "1 and 1"}, native_finish_reason="STOP"),
        ("It is 2.", "1 and 1", "stop"),
        ("seed", 10),
        error(
            400,
            "Provider returned error",
            code=400,
            metadata={
                "raw": json.dumps(
                    {"error": {"message": "Unknown parameter: 'seed'.", "param": "seed", "code": "unknown_parameter"}}
                ),
                "provider_name": "X",
            },
        ),
        error(429, "Rate limit exceeded: limit_rpm", {"X-RateLimit-Reset": "1741305600000"}, code=429),
        error(400, "This endpoint's maximum context length is 4096 tokens. However, you requested about 5000 tokens", code=400),
        error(
            403,
            "m requires moderation. Your input was flagged",
            code=403,
            metadata={"reasons": ["violence"], "flagged_input": "2"},
        ),
        Said(200, {"error": {"code": 502, "message": "Provider returned error"}, "user_id": "u"}),
    ),
    "vllm": Provider(
        answer("stop", {"content": "It is 2.", "reasoning_content": "1 and 1", "tool_calls": []}, stop_reason=None),
        ("It is 2.", "1 and 1", "stop"),
        ("reasoning_effort", "minimal"),
        error(400, LITERAL, type="Bad Request", param=None, code=400),
        Said(429, {"detail": "Too many requests"}),
        error(
            400,
            "'max_tokens' or 'max_completion_tokens' is too large: 50. This model's maximum context length is 4096 tokens and "
            "your request has 4090 input tokens (50 > 4096 - 4090). (parameter=max_tokens, value=50)",
            type="BadRequestError",
            param="max_tokens",
            code=400,
        ),
        None,
        Said(503, ""),
    ),
    "sglang": Provider(
        answer("stop", {"content": "It is 2.", "reasoning_content": None}, matched_stop=151645),
        READ,
        ("seed", 10),
        sglang(
            "1 validation error:\n  {'type': 'extra_forbidden', 'loc': ('body', 'seed'), 'msg': 'Extra inputs are not permitted'}"
        ),
        sglang("Too many requests", 429),
        sglang("The input (5000 tokens) is longer than the model's context length (4096 tokens)."),
        None,
        Said(200, answer("abort", {"content": ""})),
    ),
    "llama.cpp": Provider(
        PLAIN,
        READ,
        ("n", 2),
        error(400, "Only one completion choice is allowed", code=400, type="invalid_request_error"),
        error(429, "Too many requests", code=429, type="rate_limit"),
        error(500, "Context size has been exceeded.", code=500, type="server_error"),
        None,
        error(503, "Loading model", code=503, type="unavailable_error"),
    ),
    "llama.cpp_since_2025": Provider(
        answer("stop", {"content": "It is 2.", "reasoning_content": "1 and 1"}),
        ("It is 2.", "1 and 1", "stop"),
        ("n", 2),
        error(400, "Computer says no", code=400, type="invalid_request_error"),  # in words that nobody knows
        error(429, "Too many requests", code=429, type="rate_limit"),
        error(
            400,
            "request (4390 tokens) exceeds the available context size (4096 tokens), try increasing it",
            code=400,
            type="exceed_context_size_error",
            n_prompt_tokens=4390,
            n_ctx=4096,
        ),
        None,
        error(503, "Loading model", code=503, type="unavailable_error"),
    ),
    "ollama": Provider(
        PLAIN,
        READ,
        ("n", 2),
        None,
        error(429, "too many concurrent requests", type="api_error", param=None, code=None),
        None,
        None,
        error(503, "server busy, please try again. maximum pending requests exceeded", type="api_error", param=None, code=None),
    ),
    "tgi": Provider(
        answer("eos_token", {"content": "It is 2."}),
        READ,
        ("top_p", 1),
        Said(422, {"error": "Input validation error: `top_p` must be > 0.0 and < 1.0", "error_type": "validation"}),
        Said(429, {"error": "Model is overloaded", "error_type": "overloaded"}),
        Said(
            422,
            {
                "error": "Input validation error: `inputs` must have less than 2048 tokens. Given: 2222",
                "error_type": "validation",
            },
        ),
        None,
        Said(500, {"error": "Request failed during generation: Server error", "error_type": "generation"}),
    ),
    "lmstudio": Provider(
        PLAIN,
        READ,
        ("response_format", {"type": "json_object"}),
        Said(400, {"error": "'response_format.type' must be 'json_schema' or 'text'"}),
        error(429, "Too many requests"),
        Said(
            200,
            {
                "error": "Trying to keep the first 15857 tokens when context the overflows. However, the model is loaded with "
                "context length of only 4096 tokens, which is not enough."
            },
        ),
        None,
        Said(500, {"error": "The model has crashed without additional information. (Exit code: null)"}),
    ),
}
