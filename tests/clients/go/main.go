// openai-go: chat, text and Responses. `client BASE KEY` reads lines from standard input, each a list of cases, asks all
// cases of a line at once, and answers with one line, a list of readings in their order (tests/clients/readings.py).
package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/packages/ssestream"
	"github.com/openai/openai-go/v3/responses"
)

type request struct {
	Way    string `json:"way"`
	Model  string `json:"model"`
	Prompt string `json:"prompt"`
}

type reading struct {
	Text    string  `json:"text"`
	Finish  *string `json:"finish"`
	Usage   []int64 `json:"usage"`
	Events  int     `json:"events"`
	Error   *string `json:"error"`
	Status  *int    `json:"status"`
	Message string  `json:"message"`
}

var (
	ctx       = context.Background()
	withUsage = openai.ChatCompletionStreamOptionsParam{IncludeUsage: openai.Bool(true)}
)

func main() {
	client := openai.NewClient(option.WithBaseURL(os.Args[1]+"/v1"), option.WithAPIKey(os.Args[2]))
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var cases []request
		if err := json.Unmarshal(lines.Bytes(), &cases); err != nil {
			panic(err)
		}
		readings := make([]reading, len(cases))
		var all sync.WaitGroup
		for place, one := range cases {
			all.Add(1)
			go func() {
				defer all.Done()
				readings[place] = readCase(client, one)
			}()
		}
		all.Wait()
		line, err := json.Marshal(readings)
		if err != nil {
			panic(err)
		}
		fmt.Println(string(line))
	}
}

func readCase(client openai.Client, one request) reading {
	readers := map[string]func(openai.Client, request) (reading, error){
		"chat whole":       readChat,
		"chat stream":      readChatStream,
		"text whole":       readText,
		"text stream":      readTextStream,
		"responses whole":  readResponse,
		"responses stream": readResponseStream,
	}
	answer, err := readers[one.Way](client, one)
	if err == nil {
		return answer
	}
	class := fmt.Sprintf("%T", err)
	failure := reading{Error: &class, Message: err.Error()}
	var refusal *openai.Error
	if errors.As(err, &refusal) {
		failure.Status = &refusal.StatusCode
	}
	return failure
}

// readEvents reads a stream to its end and counts its events.
func readEvents[T any](stream *ssestream.Stream[T], take func(T)) (int, error) {
	events := 0
	for stream.Next() {
		take(stream.Current())
		events++
	}
	return events, stream.Err()
}

func chatBody(one request) openai.ChatCompletionNewParams {
	words := []openai.ChatCompletionMessageParamUnion{openai.UserMessage(one.Prompt)}
	return openai.ChatCompletionNewParams{Model: one.Model, Messages: words}
}

func chatReading(answer openai.ChatCompletion, events int) reading {
	choice := answer.Choices[0]
	usage := []int64{answer.Usage.PromptTokens, answer.Usage.CompletionTokens}
	return reading{Text: choice.Message.Content, Finish: &choice.FinishReason, Usage: usage, Events: events}
}

func readChat(client openai.Client, one request) (reading, error) {
	answer, err := client.Chat.Completions.New(ctx, chatBody(one))
	if err != nil {
		return reading{}, err
	}
	return chatReading(*answer, 1), nil
}

func readChatStream(client openai.Client, one request) (reading, error) {
	body := chatBody(one)
	body.StreamOptions = withUsage
	var whole openai.ChatCompletionAccumulator
	fitting := true
	finish := ""
	stream := client.Chat.Completions.NewStreaming(ctx, body)
	events, err := readEvents(stream, func(chunk openai.ChatCompletionChunk) {
		fitting = whole.AddChunk(chunk) && fitting
		for _, choice := range chunk.Choices {
			finish = cmp.Or(choice.FinishReason, finish)
		}
	})
	if err == nil && !fitting {
		err = errors.New("a chunk does not fit the ones before it")
	}
	if err != nil {
		return reading{}, err
	}
	answer := chatReading(whole.ChatCompletion, events)
	// The accumulator forgets it: LiteLLM's chunk with the usage has a choice without one.
	answer.Finish = &finish
	return answer, nil
}

func textBody(one request) openai.CompletionNewParams {
	prompt := openai.CompletionNewParamsPromptUnion{OfString: openai.String(one.Prompt)}
	return openai.CompletionNewParams{Model: openai.CompletionNewParamsModel(one.Model), Prompt: prompt}
}

func (answer *reading) addText(part openai.Completion) {
	for _, choice := range part.Choices {
		answer.Text += choice.Text
		if choice.FinishReason != "" {
			finish := string(choice.FinishReason)
			answer.Finish = &finish
		}
	}
	if part.Usage.TotalTokens > 0 {
		answer.Usage = []int64{part.Usage.PromptTokens, part.Usage.CompletionTokens}
	}
}

func readText(client openai.Client, one request) (reading, error) {
	whole, err := client.Completions.New(ctx, textBody(one))
	answer := reading{Events: 1}
	if err == nil {
		answer.addText(*whole)
	}
	return answer, err
}

func readTextStream(client openai.Client, one request) (answer reading, err error) {
	body := textBody(one)
	body.StreamOptions = withUsage
	answer.Events, err = readEvents(client.Completions.NewStreaming(ctx, body), answer.addText)
	return answer, err
}

func responseBody(one request) responses.ResponseNewParams {
	words := responses.ResponseNewParamsInputUnion{OfString: openai.String(one.Prompt)}
	return responses.ResponseNewParams{Model: one.Model, Input: words}
}

func responseReading(answer responses.Response, events int) reading {
	finish := string(answer.Status)
	usage := []int64{answer.Usage.InputTokens, answer.Usage.OutputTokens}
	return reading{Text: answer.OutputText(), Finish: &finish, Usage: usage, Events: events, Message: answer.Error.Message}
}

func readResponse(client openai.Client, one request) (reading, error) {
	answer, err := client.Responses.New(ctx, responseBody(one))
	if err != nil {
		return reading{}, err
	}
	return responseReading(*answer, 1), nil
}

func readResponseStream(client openai.Client, one request) (reading, error) {
	var last responses.Response
	stream := client.Responses.NewStreaming(ctx, responseBody(one))
	events, err := readEvents(stream, func(event responses.ResponseStreamEventUnion) {
		if event.Response.ID != "" {
			last = event.Response
		}
	})
	if err != nil {
		return reading{}, err
	}
	return responseReading(last, events), nil
}
