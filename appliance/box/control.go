package box

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"github.com/bitcdn/bitcdn/appliance/catalog"
	"github.com/bitcdn/bitcdn/payments/money"
	"github.com/bitcdn/bitcdn/webui"
)

// controlSocket is the name of the socket in the data folder. Who can open it
// owns the box: its mode is 0600.
const controlSocket = "control.sock"

// maxControl is the longest request and answer in bytes: a torrent in base64
// and some more.
const maxControl = 64 << 20

// controlTimeout is how long the box may take for an answer that is no long one.
const controlTimeout = time.Minute

// AddRequest registers a title.
type AddRequest struct {
	Torrent []byte      `json:"torrent"`
	DataDir string      `json:"data_dir"` // absolute; contains the title's file or folder
	Price   *money.Rate `json:"price,omitempty"`
}

// AddResponse says what was registered.
type AddResponse struct {
	InfoHash string     `json:"info_hash"`
	Name     string     `json:"name"`
	Length   int64      `json:"length"`
	Price    money.Rate `json:"price"`
	Magnet   string     `json:"magnet"`
}

// CloseRequest settles a channel, or all of them where Channel is empty.
type CloseRequest struct {
	Channel string `json:"channel"` // hex
}

// CloseResponse says how many channels are being settled.
type CloseResponse struct {
	Channels int `json:"channels"`
}

// SweepRequest pays the earnings out.
type SweepRequest struct {
	DryRun bool `json:"dry_run"`
}

// SweepResponse says what was paid out, or would be: in all, and in each
// transaction.
type SweepResponse struct {
	Inputs int            `json:"inputs"`
	Total  money.Satoshis `json:"total"`
	Fee    money.Satoshis `json:"fee"`
	Payout money.Satoshis `json:"payout"`
	To     string         `json:"to"`
	Txid   string         `json:"txid,omitempty"` // of the first; empty for a dry run

	Transactions []SweepTransaction `json:"transactions"`
	// Consolidations join small coins for no fee; they pay nothing out yet.
	Consolidations []SweepTransaction `json:"consolidations,omitempty"`
	// Left and Dust are coins that are not paid out: because of their fee, and
	// because they cost more than they are worth.
	Left money.Satoshis `json:"left"`
	Dust money.Satoshis `json:"dust"`
}

// SweepTransaction is one transaction of a payout.
type SweepTransaction struct {
	Txid     string         `json:"txid,omitempty"` // empty for a dry run
	Total    money.Satoshis `json:"total"`
	Fee      money.Satoshis `json:"fee"`
	FeeShare int            `json:"fee_share"` // per mille of the total
	FeeRate  money.FeeRate  `json:"fee_rate"`  // satoshis per 1,000 bytes
	Payout   money.Satoshis `json:"payout"`
	Inputs   []SweepInput   `json:"inputs"`
}

// SweepInput is a coin that is paid out.
type SweepInput struct {
	Coin   string         `json:"coin"` // txid:index
	Value  money.Satoshis `json:"value"`
	Titles []string       `json:"titles,omitempty"` // that it was earned with
}

// RemoveRequest forgets a title; its data stays.
type RemoveRequest struct {
	InfoHash string `json:"info_hash"`
}

// PriceRequest sets a title's price; nil is the box's default.
type PriceRequest struct {
	InfoHash string      `json:"info_hash"`
	Price    *money.Rate `json:"price"`
}

// Empty is an answer without content.
type Empty struct{}

type controlError struct {
	Error string `json:"error"`
}

// control answers the command line.
func (b *Box) control() http.Handler {
	mux := http.NewServeMux()
	handle(mux, "/add", b.controlAdd)
	handle(mux, "/remove", func(ctx context.Context, r RemoveRequest) (Empty, error) {
		ih, err := infoHash(r.InfoHash)
		if err != nil {
			return Empty{}, err
		}
		err = b.catalogue.Remove(ctx, ih)
		b.dropTitle(ih)
		b.server.Drop(ih)
		return Empty{}, err
	})
	handle(mux, "/price", func(ctx context.Context, r PriceRequest) (Empty, error) {
		ih, err := infoHash(r.InfoHash)
		if err != nil {
			return Empty{}, err
		}
		err = b.catalogue.SetPrice(ctx, ih, r.Price)
		b.server.Drop(ih) // buyers come again and see the new price
		return Empty{}, err
	})
	handle(mux, "/close", b.controlClose)
	handle(mux, "/sweep", b.controlSweep)
	b.controlLedger(mux)
	b.controlBackup(mux)
	handle(mux, "/check", func(ctx context.Context, _ Empty) (Empty, error) { return Empty{}, b.ledger.Check(ctx) })
	handle(mux, "/status", func(ctx context.Context, _ Empty) (webui.Status, error) { return b.Status(ctx) })
	return mux
}

func (b *Box) controlAdd(ctx context.Context, r AddRequest) (AddResponse, error) {
	title, err := b.catalogue.Add(ctx, r.Torrent, r.DataDir, r.Price)
	if err != nil {
		return AddResponse{}, err
	}
	torrent, err := catalog.ParseTorrent(r.Torrent)
	if err != nil {
		return AddResponse{}, err
	}
	b.server.Drop(title.InfoHash) // it may have been there, in another place or at another price
	b.announceTitle(title.InfoHash, torrent.Trackers)
	return AddResponse{InfoHash: hex.EncodeToString(title.InfoHash[:]), Name: title.DisplayName(), Length: title.Length,
		Price: b.titles.priceOf(title), Magnet: torrent.Magnet()}, nil
}

var errNoSales = errors.New("this box sells nothing: chain.node is not set")

func (b *Box) controlClose(ctx context.Context, r CloseRequest) (CloseResponse, error) {
	if b.seller == nil {
		return CloseResponse{}, errNoSales
	}
	if r.Channel == "" {
		n, err := b.seller.CloseAll(ctx)
		return CloseResponse{Channels: n}, err
	}
	var id [32]byte
	if n, err := hex.Decode(id[:], []byte(r.Channel)); err != nil || n != len(id) || len(r.Channel) != 2*len(id) {
		return CloseResponse{}, fmt.Errorf("%q is not a channel: 64 hexadecimal digits are wanted", r.Channel)
	}
	return CloseResponse{Channels: 1}, b.seller.CloseChannel(ctx, id)
}

func infoHash(text string) (ih [20]byte, err error) {
	if len(text) != 2*len(ih) {
		return ih, fmt.Errorf("%q is not an info hash: 40 hexadecimal digits are wanted", text)
	}
	if _, err := hex.Decode(ih[:], []byte(text)); err != nil {
		return ih, fmt.Errorf("%q is not an info hash: %w", text, err)
	}
	return ih, nil
}

// handle makes a function of JSON a handler of POST.
func handle[Request, Response any](mux *http.ServeMux, path string, fn func(context.Context, Request) (Response, error)) {
	mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
		var request Request
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxControl)).Decode(&request); err != nil {
			refuse(w, http.StatusBadRequest, "request: "+err.Error())
			return
		}
		response, err := fn(r.Context(), request)
		if err != nil {
			refuse(w, http.StatusUnprocessableEntity, err.Error())
			return
		}
		_ = json.NewEncoder(w).Encode(response) // a caller that has gone is no error of ours
	})
}

// ErrNotRunning says that no box answers on a data folder.
var ErrNotRunning = errors.New("no bitcdnd answers")

// Control is the command line's side of a running box's control socket.
type Control struct {
	client http.Client
	path   string
}

// NewControl returns a Control for the box on a data folder.
func NewControl(dataDir string) *Control {
	path := filepath.Join(dataDir, controlSocket)
	return &Control{path: path, client: http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		}}}}
}

// Add registers a title, or changes where it lies and what it costs.
func (c *Control) Add(ctx context.Context, r AddRequest) (AddResponse, error) {
	return call[AddResponse](ctx, c, "/add", r)
}

// Remove forgets a title.
func (c *Control) Remove(ctx context.Context, r RemoveRequest) error {
	_, err := call[Empty](ctx, c, "/remove", r)
	return err
}

// SetPrice sets a title's price.
func (c *Control) SetPrice(ctx context.Context, r PriceRequest) error {
	_, err := call[Empty](ctx, c, "/price", r)
	return err
}

// CloseChannels settles channels.
func (c *Control) CloseChannels(ctx context.Context, r CloseRequest) (CloseResponse, error) {
	return call[CloseResponse](ctx, c, "/close", r)
}

// Sweep pays the earnings out.
func (c *Control) Sweep(ctx context.Context, r SweepRequest) (SweepResponse, error) {
	return call[SweepResponse](ctx, c, "/sweep", r)
}

// Check recomputes the ledger's balances and returns what does not add up.
func (c *Control) Check(ctx context.Context) error {
	_, err := call[Empty](ctx, c, "/check", Empty{})
	return err
}

// Status tells how the box is doing.
func (c *Control) Status(ctx context.Context) (webui.Status, error) {
	return call[webui.Status](ctx, c, "/status", Empty{})
}

// call asks the box. Errors are ErrNotRunning and the box's own words.
func call[Response any](ctx context.Context, c *Control, path string, request any) (response Response, err error) {
	ctx, cancel := context.WithTimeout(ctx, controlTimeout)
	defer cancel()
	body, err := c.stream(ctx, path, request)
	if err != nil {
		return response, err
	}
	defer body.Close()
	b, err := io.ReadAll(io.LimitReader(body, maxControl))
	if err != nil {
		return response, fmt.Errorf("the box's answer: %w", err)
	}
	if err := json.Unmarshal(b, &response); err != nil {
		return response, fmt.Errorf("the box's answer: %w", err)
	}
	return response, nil
}

// stream asks the box and returns its answer to be read, for as long as ctx
// lasts. Errors are those of call.
func (c *Control) stream(ctx context.Context, path string, request any) (io.ReadCloser, error) {
	body, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://box"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	answer, err := c.client.Do(r)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("%w on %s: %w", ErrNotRunning, c.path, err)
	}
	if answer.StatusCode == http.StatusOK {
		return answer.Body, nil
	}
	defer answer.Body.Close()
	var refusal controlError
	if json.NewDecoder(io.LimitReader(answer.Body, maxControl)).Decode(&refusal) != nil || refusal.Error == "" {
		return nil, fmt.Errorf("the box answered %s", answer.Status)
	}
	return nil, errors.New(refusal.Error)
}
